// Uploads with progress, from chosen and from dropped files and folders. Without this script the plain form works.

import { filesDropped } from "./dropped.js";

/** @typedef {{file: File, path: string, row: HTMLElement, id?: string, url?: string}} Item */

const form = document.getElementById("uploader");
const status = document.getElementById("status");
const [list, grouping, submit, cancel] = ["files", "grouping", "submit", "cancel"].map((name) => form.querySelector(`[data-${name}]`));
// parts of one model, or out of a folder
const BELONGS = /\.(json|ya?ml|npz|npy|safetensors|weights\.h5|index|meta|data-\d+-of-\d+|xml|bin)$|(^|\/)custom_objects\.py$|\//;
/** @type {Item[]} */
let items = [];
/** @type {XMLHttpRequest | null} */
let running = null;
let busy = false;

/** @param {number} bytes */
function human(bytes) {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), 4);
  return `${(bytes / 1024 ** power).toFixed(power ? 1 : 0)} ${["bytes", "KB", "MB", "GB", "TB"][power]}`;
}

/** @param {Item} item @param {string} text @param {string} [tone] good and bad are spoken, progress is not */
function say(item, text, tone = "") {
  const said = item.row.querySelector("[data-said]");
  said.textContent = text;
  said.dataset.said = tone;
  if (tone) status.textContent = `${item.path}: ${text}`;
}

/** @param {[File, string]} chosen @returns {Item} */
function listed([file, path]) {
  const row = document.getElementById("file-row").content.firstElementChild.cloneNode(true);
  row.querySelector("[data-name]").textContent = path;
  row.querySelector("[data-size]").textContent = human(file.size);
  row.querySelector("progress").setAttribute("aria-label", `Sent of ${path}`);
  return { file, path, row };
}

/** @param {[File, string][]} chosen Files with their paths; they replace what was listed before. */
function take(chosen) {
  if (busy || !chosen.length) return;
  items = chosen.map(listed);
  list.replaceChildren(...items.map(({ row }) => row));
  list.hidden = form.hidden = false;
  grouping.hidden = items.length < 2;
  const together = items.some(({ path }) => BELONGS.test(path)) ? "one" : "each";
  grouping.querySelector(`[value=${together}]`).checked = true;
  form.elements.files.required = false;
  if ("auto" in form.dataset) uploadAll();
  else submit.focus();
}

/** Sends one body; resolves with the JSON of the answer, rejects with a sentence for people.
 * @param {string} url @param {Record<string, string>} headers @param {XMLHttpRequestBodyInit} body
 * @param {(sent: number) => void} [progress] @returns {Promise<any>} */
function send(url, headers, body, progress) {
  return new Promise((resolve, reject) => {
    const refuse = (sentence) => reject(new Error(sentence));
    running = new XMLHttpRequest();
    running.open("POST", url);
    running.responseType = "json";
    headers["X-CSRFToken"] = form.elements.csrfmiddlewaretoken.value;
    for (const [name, value] of Object.entries(headers)) running.setRequestHeader(name, value);
    if (progress) running.upload.onprogress = (event) => progress(event.loaded);
    running.onload = ({ target: { status: code, response } }) => {
      if (code < 300 && response) resolve(response);
      else refuse(response?.error?.message ?? `Larder answered ${code}. Reload the page and try again.`);
    };
    running.onerror = () => refuse("The connection was lost. Press Upload to try again.");
    running.onabort = () => refuse("Canceled. Press Upload to send it after all.");
    running.send(body);
  });
}

/** @param {Item} item */
async function sendBytes(item) {
  const { size } = item.file;
  const most = Number(form.dataset.max);
  if (size > most) throw new Error(`It has ${human(size)}, more than the ${human(most)} that this Larder takes.`);
  const bar = item.row.querySelector("progress");
  const begun = performance.now();
  bar.hidden = false;
  say(item, "Sending …");
  const url = `${form.dataset.rawUrl}?name=${encodeURIComponent(item.path)}`;
  const answer = await send(url, { "Content-Type": "application/octet-stream" }, item.file, (sent) => {
    const speed = (sent * 1000) / (performance.now() - begun); // bytes per second
    bar.value = sent / Math.max(size, 1);
    say(item, `${human(sent)} sent · ${human(speed)}/s · ${Math.ceil((size - sent) / speed)} s left`);
  });
  item.id = answer.id;
  bar.value = 1;
  say(item, "Sent");
}

/** @param {Item[]} group The files of one model, all of them sent. */
async function finish(group) {
  const fields = new URLSearchParams(group.map(({ id }) => ["upload", id]));
  for (const name of ["name", "model"]) fields.append(name, form.elements[name]?.value ?? "");
  const answer = await send(form.dataset.finishUrl, {}, fields);
  for (const item of group) {
    item.url = answer.url;
    say(item, `Recognised as ${answer.label}: ${answer.recognised_by}.`, "good");
  }
  const link = Object.assign(document.createElement("a"), { href: answer.url, textContent: "Open it" });
  group[0].row.querySelector("[data-said]").append(" ", link);
}

/** @param {Item[]} group What was sent stays sent: trying again goes on where it failed. */
async function upload(group) {
  let [current] = group;
  try {
    for (current of group) if (!current.id) await sendBytes(current);
    [current] = group;
    say(current, "Recognising …");
    await finish(group);
  } catch (error) {
    say(current, error.message, "bad");
  }
}

async function uploadAll() {
  const together = items.length > 1 && grouping.querySelector("[value=one]").checked;
  const groups = (together ? [items] : items.map((item) => [item])).filter(([first]) => !first.url);
  busy = submit.disabled = true;
  cancel.hidden = false;
  for (const group of groups) await upload(group);
  busy = submit.disabled = false;
  cancel.hidden = true;
  const urls = [...new Set(items.map(({ url }) => url))];
  if (urls.length === 1 && urls[0]) location.assign(urls[0]);
}

/** @param {Event} event @param {boolean} dragging */
function drag(event, dragging) {
  event.preventDefault();
  document.body.toggleAttribute("data-dragging", dragging);
}

for (const scripted of form.querySelectorAll("[data-scripted]")) scripted.hidden = false;
for (const input of form.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => take([...input.files].map((file) => [file, file.webkitRelativePath || file.name])));
}
form.addEventListener("submit", (event) => { event.preventDefault(); if (items.length && !busy) uploadAll(); });
cancel.addEventListener("click", () => running?.abort());
window.addEventListener("beforeunload", (event) => busy && event.preventDefault());
document.addEventListener("dragover", (event) => drag(event, true));
document.addEventListener("dragleave", (event) => drag(event, Boolean(event.relatedTarget)));
document.addEventListener("drop", async (event) => {
  drag(event, false);
  take(await filesDropped(event));
});
