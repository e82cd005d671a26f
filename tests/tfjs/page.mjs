// Makes Node fetch relative addresses from the current folder, as a browser fetches them from beside the page.
import {readFile} from 'node:fs/promises';

globalThis.fetch = async address => new Response(
    await readFile(address), {headers: {'content-type': address.endsWith('.json') ? 'application/json' : 'application/octet-stream'}});
