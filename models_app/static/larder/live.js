// What htmx's polling needs: a refreshed fragment keeps what a person typed, ticked and opened, and its news is spoken.

const status = document.getElementById("status");
let kept = [];

/** @param {Element} root */
function remember(root) {
  const fields = [...root.querySelectorAll("input[id]:not([type=hidden], [type=file]), select[id], details[id]")];
  kept = fields.map(({ id, checked, value, open }) => ({ id, checked, value, open }));
}

function restore() {
  for (const { id, checked, value, open } of kept) {
    const field = document.getElementById(id);
    if (field instanceof HTMLDetailsElement) field.open = open;
    else if (field) Object.assign(field, field.type === "checkbox" ? { checked } : { value });
  }
}

/** Speaks a fragment's news once, not at every poll. */
function speak() {
  const news = document.querySelector("[data-news]")?.dataset.news.replace(/\s+/g, " ").trim() ?? "";
  if (status.dataset.last !== undefined && status.dataset.last !== news) status.textContent = news;
  status.dataset.last = news;
}

document.addEventListener("htmx:beforeSwap", (event) => {
  const { xhr, target, pathInfo } = event.detail;
  if (xhr.responseURL && new URL(xhr.responseURL).pathname !== new URL(pathInfo.requestPath, location).pathname) {
    event.detail.shouldSwap = false;
    location.reload(); // signed out meanwhile: the answer is the sign-in page, not the fragment
    return;
  }
  remember(target);
});
document.addEventListener("htmx:afterSettle", () => { restore(); speak(); });
document.addEventListener("htmx:sendError", () => document.getElementById("offline").removeAttribute("hidden"));
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.successful) document.getElementById("offline").setAttribute("hidden", "");
});
speak();
