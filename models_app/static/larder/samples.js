// Samples by drag and drop: a file, pictures or a folder of them, anywhere on the version's page. Without it the form works.

import { filesDropped } from "./dropped.js";

const PICTURES = /\.(png|jpe?g)$/i;
const status = document.getElementById("status");
const form = () => document.getElementById("samples-form"); // polling puts another one in its place

/** @param {Event} event @param {boolean} dragging */
function drag(event, dragging) {
  if (!form()) return;
  event.preventDefault();
  document.body.toggleAttribute("data-dragging", dragging);
}

/** @param {[File, string][]} found Of a folder the pictures, without hidden ones; of single files all. */
function chosen(found) {
  const pictures = found.filter(([{ name }]) => PICTURES.test(name) && !name.startsWith("."));
  return (pictures.length ? pictures : found).sort(([, a], [, b]) => (a < b ? -1 : 1)).map(([file]) => file);
}

/** What the page says of dropping, also where polling has just put the form there. */
function show() {
  for (const scripted of form()?.querySelectorAll("[data-scripted]") ?? []) scripted.hidden = false;
}

show();
document.addEventListener("htmx:afterSettle", show);
document.addEventListener("dragover", (event) => drag(event, true));
document.addEventListener("dragleave", (event) => drag(event, Boolean(event.relatedTarget)));
document.addEventListener("drop", async (event) => {
  drag(event, false);
  if (!form()) return;
  const files = chosen(await filesDropped(event));
  const most = Number(form().dataset.max);
  if (!files.length) return;
  if (files.reduce((sum, { size }) => sum + size, 0) > most) {
    const said = form().querySelector("[data-said]");
    said.hidden = false;
    status.textContent = said.textContent = `That is more than the ${Math.floor(most / 2 ** 20)} MB that samples may take.`;
    return;
  }
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  form().elements.files.files = transfer.files;
  form().requestSubmit();
});
