// The files that a person dropped, those in dropped folders too.

/** @param {FileSystemEntry | File} entry @returns {Promise<[File, string][]>} every file under it, with its path */
async function filesUnder(entry) {
  if (entry instanceof File) return [[entry, entry.name]];
  if (entry.isFile) return [[await new Promise((done, fail) => entry.file(done, fail)), entry.fullPath.slice(1)]];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, fail) => reader.readEntries(done, fail)); // at most 100 at a time
    if (!some.length) return (await Promise.all(found.map(filesUnder))).flat();
    found.push(...some);
  }
}

/** @param {DragEvent} event @returns {Promise<[File, string][]>} */
export async function filesDropped(event) {
  const dropped = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
  const entries = dropped.map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  return (await Promise.all(entries.map(filesUnder))).flat();
}
