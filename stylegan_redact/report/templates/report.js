// SPDX-License-Identifier: Apache-2.0
"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  root.classList.add("js");

  // Theme: as the system has it, or light, or dark. A page opened from a file may not be allowed to remember.
  const themes = ["auto", "light", "dark"];
  const theme = one("#theme");
  const paint = (name) => {
    root.dataset.theme = name;
    one("span", theme).textContent = name;
    try { localStorage.setItem("stylegan-redact-theme", name); } catch { return; }
  };
  let remembered = null;
  try { remembered = localStorage.getItem("stylegan-redact-theme"); } catch { remembered = null; }
  paint(themes.includes(remembered) ? remembered : "auto");
  theme.hidden = false;
  theme.addEventListener("click", () => paint(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]));

  // A viewer: two pictures over each other, a slider between them, and four ways to look.
  const mode = (viewer, name) => {
    viewer.dataset.mode = name;
    for (const button of all(".modes button", viewer)) button.setAttribute("aria-pressed", String(button.dataset.mode === name));
    one("input", viewer).disabled = name !== "swipe";
  };
  const fill = (viewer, seed, sources) => {
    for (const which of ["before", "after", "map"]) {
      const image = one(`img.${which}`, viewer);
      image.src = sources[which];
      image.alt = which === "map" ? `Where seed ${seed} changed` : `Seed ${seed} ${which}`;
    }
  };
  for (const viewer of all(".viewer")) {
    const slider = one("input", viewer);
    const move = () => viewer.style.setProperty("--at", `${slider.value}%`);
    slider.addEventListener("input", move);
    move();
    for (const button of all(".modes button", viewer)) button.addEventListener("click", () => mode(viewer, button.dataset.mode));
  }
  const sourcesIn = (place) => {
    const [before, after] = all(".still img, .two img", place).map((image) => image.src);
    return { before, after, map: one("img.source", place).src };
  };
  const hero = one("#hero");
  if (hero) fill(one(".viewer", hero), one(".still img", hero).alt.split(" ")[1], sourcesIn(hero));

  // The gallery: filtered, sorted, walked with the arrow keys.
  const gallery = one("#gallery");
  const items = all("li", gallery);
  const told = one("#told");
  const order = one("#order");
  let kind = "";
  const shown = () => all("li:not([hidden])", gallery);
  const sorted = {
    worst: (a, b) => a.dataset.worst - b.dataset.worst,
    change: (a, b) => b.dataset.change - a.dataset.change,
    score: (a, b) => b.dataset.score - a.dataset.score,
    seed: (a, b) => a.dataset.seed - b.dataset.seed,
  };
  const arrange = () => {
    for (const item of items) item.hidden = kind !== "" && !item.dataset.kinds.split(" ").includes(kind);
    gallery.append(...[...items].sort(sorted[order.value]));
    const now = shown();
    told.textContent = now.length === 0 ? "No such pair: nothing of the kind was found." : `${now.length} pairs`;
    items.forEach((item) => { one("button", item).tabIndex = item === now[0] ? 0 : -1; });
  };
  for (const chip of all("#tools .chips button")) {
    chip.addEventListener("click", () => {
      kind = chip.dataset.kind;
      for (const each of all("#tools .chips button")) each.setAttribute("aria-pressed", String(each === chip));
      arrange();
    });
  }
  order.addEventListener("change", arrange);
  one("#tools").hidden = false;
  arrange();
  const columns = (list) => list.filter((item) => item.offsetTop === list[0].offsetTop).length;
  gallery.addEventListener("keydown", (event) => {
    const list = shown();
    const at = list.indexOf(event.target.closest("li"));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(list), ArrowUp: -columns(list), Home: -at, End: list.length - 1 - at };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const next = list[Math.min(Math.max(at + steps[event.key], 0), list.length - 1)];
    one("button", list[at]).tabIndex = -1;
    one("button", next).tabIndex = 0;
    one("button", next).focus();
  });

  // One pair, large.
  const dialog = one("#dialog");
  const viewer = one(".viewer", dialog);
  let current = null;
  const open = (item) => {
    current = item;
    const { seed, score } = item.dataset;
    const list = shown();
    const at = list.indexOf(item);
    fill(viewer, seed, sourcesIn(item));
    one("#of").textContent = `Seed ${seed}`;
    const words = all(".words > :not(b)", item).map((each) => each.textContent).join(" · ");
    one("#about").textContent = `${at + 1} of ${list.length} · ${words}${score === "" ? "" : ` · judge's score after: ${score}`}`;
    one("#back").disabled = at === 0;
    one("#next").disabled = at === list.length - 1;
    if (!dialog.open) {
      mode(viewer, "swipe");
      dialog.showModal();
      one("input", viewer).focus();
    }
  };
  const step = (by) => {
    const next = shown()[shown().indexOf(current) + by];
    if (next) open(next);
  };
  gallery.addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item) open(item);
  });
  one("#back").addEventListener("click", () => step(-1));
  one("#next").addEventListener("click", () => step(1));
  one("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (current) one("button", current).focus(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "PageDown" || event.key === "n") { event.preventDefault(); step(1); }
    if (event.key === "PageUp" || event.key === "p") { event.preventDefault(); step(-1); }
  });

  // Paper shows what is folded away on a screen.
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open])"); for (const each of folded) each.open = true; });
  addEventListener("afterprint", () => { for (const each of folded) each.open = false; });
})();
