// Copy buttons: <button data-copy="text"> or <button data-copy-from="id of an element">.

const status = document.getElementById("status");

/** @param {HTMLElement} button */
function textOf(button) {
  const source = button.dataset.copyFrom;
  return source ? document.getElementById(source).textContent.trim() : button.dataset.copy;
}

/** The old way, for pages served over plain HTTP, where browsers offer no clipboard. @param {string} text */
function copyBySelection(text) {
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("the browser refused");
}

/** @param {HTMLElement} button */
async function copy(button) {
  const focused = document.activeElement;
  if (navigator.clipboard) await navigator.clipboard.writeText(textOf(button));
  else copyBySelection(textOf(button));
  focused?.focus();
}

/** Says the outcome on the button and to screen readers. @param {HTMLElement} button @param {string} word */
function say(button, word) {
  const label = button.querySelector("[data-word]");
  const before = label.textContent;
  label.textContent = status.textContent = word;
  button.dataset.said = word;
  setTimeout(() => {
    label.textContent = before;
    status.textContent = "";
    delete button.dataset.said;
  }, 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-copy-from]");
  if (!button || button.dataset.said) return;
  copy(button).then(() => say(button, "Copied"), () => say(button, "Could not copy"));
});
