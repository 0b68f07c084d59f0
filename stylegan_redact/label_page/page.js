// SPDX-License-Identifier: Apache-2.0
"use strict";

const $ = (id) => document.getElementById(id);
let state = null;
let at = 0; // Which picture has the cursor.
let queue = Promise.resolve(); // Actions go one after the other, in the order of the keys.
let waiting = 0;
let failed = "";
let over = false;
let turning = false;

const WORDS = { yes: "shows it", no: "does not", "guess-yes": "guess: shows it", "guess-no": "guess: does not", none: "no answer" };
const MARKS = { yes: "✓", no: "✕", "guess-yes": "✓?", "guess-no": "✕?", none: "" };

function kindOf(cell) {
  if (cell.label !== null) return cell.label ? "yes" : "no";
  if (state.mode === "check" && cell.guess !== null) return cell.guess ? "guess-yes" : "guess-no";
  return "none";
}

function post(path, value) {
  waiting += 1;
  queue = queue.then(async () => {
    try {
      const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });
      const said = await answer.json();
      failed = said.error || "";
      if (!said.error) {
        if (path === "finish") over = true;
        accept(said, waiting > 1);
      } else {
        await load();
      }
    } catch (error) {
      failed = "The command does not answer any more. Start it again: every answer up to here that it took is kept.";
    }
    waiting -= 1;
    draw();
  });
  return queue;
}

// What the server says; while more answers are on their way, what the person sees is newer than its labels.
function accept(said, stale) {
  const same = state && state.cells.map((c) => c.seed).join() === said.cells.map((c) => c.seed).join();
  if (stale && same) said.cells = state.cells;
  if (!same) at = 0;
  state = said;
}

async function load() {
  state = await (await fetch("state")).json();
  at = Math.min(at, Math.max(state.cells.length - 1, 0));
}

function answer(index, shows) {
  const cell = state.cells[index];
  if (!cell || cell.label === shows) return;
  cell.label = shows;
  draw();
  post("label", [[cell.seed, shows]]);
}

function press(index) {
  const cell = state.cells[index];
  const kind = kindOf(cell);
  at = index;
  if (kind === "guess-yes") return answer(index, false);
  if (kind === "guess-no" || kind === "none") return answer(index, true);
  answer(index, kind === "yes" ? false : null);
}

function say(shows) {
  answer(at, shows);
  move(1);
}

function move(by) {
  at = Math.min(Math.max(at + by, 0), Math.max(state.cells.length - 1, 0));
  draw();
  focus();
}

function focus() {
  if ($("zoom").open) return;
  const button = $("grid").children[at];
  if (button) button.focus({ preventScroll: false });
}

function columns() {
  return getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;
}

async function next(answerRest) {
  if (turning) return;
  turning = true;
  try {
    await answerAndTurn(answerRest);
  } finally {
    turning = false;
  }
}

async function answerAndTurn(answerRest) {
  if (waiting) await queue;
  const rest = state.cells.filter((cell) => cell.label === null);
  if (answerRest && rest.length) {
    const answers = rest.map((cell) => [cell.seed, state.mode === "check" ? cell.guess : false]);
    await post("label", answers);
  }
  if (failed) return;
  await turn(state.mode);
}

async function turn(mode) {
  await post("turn", mode);
  at = 0;
  draw();
  focus();
  scrollTo(0, 0);
}

function percent(value) {
  return `${Math.round(100 * value)} %`;
}

function advice() {
  const said = state.yes + state.no;
  if (failed) return [failed, "error"];
  if (state.settled) return [`More clicks would change little. Check guesses (C), or save.`, "done"];
  if (state.mode === "check") return ["Dashed: what it guesses, the least sure first, and answers of yours that surprise it. Correct what is wrong.", ""];
  if (!state.can_check) return ["Click what shows it; the rest of a page is answered by Enter. Rare features take a few pages to turn up.", ""];
  if (!state.of_images) return ["This file's discriminator is not known here: guesses come from latents alone and need many more clicks.", ""];
  return [said < 100 ? `${said} answers; about 100 to 200 make a good direction.` : `${said} answers. Guesses still change from page to page.`, ""];
}

function drawGrid() {
  const grid = $("grid");
  const seeds = state.cells.map((cell) => cell.seed).join();
  if (grid.dataset.seeds !== seeds) {
    grid.dataset.seeds = seeds;
    grid.replaceChildren(...state.cells.map(makeCell));
    if (!state.cells.length) {
      const empty = document.createElement("p");
      empty.className = "empty";
      empty.textContent = "Every picture drawn so far has an answer.";
      grid.append(empty);
    }
  }
  state.cells.forEach((cell, index) => {
    const kind = kindOf(cell);
    const button = grid.children[index];
    button.className = `cell ${kind}`;
    button.tabIndex = index === at ? 0 : -1;
    button.setAttribute("aria-label", `Picture ${index + 1} of ${state.cells.length}, ${WORDS[kind]}`);
    button.lastChild.textContent = MARKS[kind];
  });
}

function makeCell(cell, index) {
  const button = document.createElement("button");
  const img = document.createElement("img");
  const mark = document.createElement("span");
  button.type = "button";
  img.src = `small/${cell.seed}`;
  img.alt = "";
  img.draggable = false;
  mark.className = "mark";
  mark.setAttribute("aria-hidden", "true");
  button.append(img, mark);
  button.addEventListener("focus", () => { at = index; });
  let held = null;
  let zoomed = false;
  button.addEventListener("pointerdown", (event) => {
    zoomed = false;
    if (event.pointerType === "touch") held = setTimeout(() => { zoomed = true; zoom(index); }, 450);
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) button.addEventListener(end, () => clearTimeout(held));
  button.addEventListener("click", (event) => {
    if (!zoomed && event.detail > 0) press(index); // Keys have their own meaning.
  });
  button.addEventListener("contextmenu", (event) => {
    event.preventDefault();
    if (!zoomed) zoom(index);
  });
  return button;
}

function draw() {
  if (!state) return;
  $("over").hidden = !over;
  document.title = `Label ${state.feature}`;
  $("feature").textContent = state.feature;
  $("yes").textContent = state.yes;
  $("no").textContent = state.no;
  const [text, kind] = advice();
  $("advice").textContent = text;
  $("advice").className = kind;
  if (state.accuracy) {
    const [value, low, high, n] = state.accuracy;
    $("meter").value = value;
    $("accuracy").textContent = `${percent(value)} (${percent(low)} to ${percent(high)})`;
    $("accuracy").title = `Balanced accuracy by cross-validation on your ${n} answers at the last page; 95 % interval. These are the hard pictures.`;
  } else {
    $("meter").value = 0.5;
    $("accuracy").textContent = "label a few of each first";
  }
  $("rate").textContent = state.rate === null ? "not known yet" : `about ${percent(state.rate)} show it`;
  if (state.drawn < state.pool) $("rate").textContent += ` · ${state.drawn} of ${state.pool} drawn`;
  $("undo").disabled = !state.undo;
  $("mode-check").disabled = !state.can_check && state.mode === "label";
  for (const mode of ["label", "check"]) $(`mode-${mode}`).setAttribute("aria-pressed", String(state.mode === mode));
  const open = state.cells.some((cell) => cell.label === null);
  for (const kind of ["label", "check", "done"]) $(`next-${kind}`).classList.toggle("shown", kind === (open ? state.mode : "done"));
  $("skip").disabled = !open;
  drawGrid();
  if ($("zoom").open) drawZoom();
}

function zoom(index) {
  at = index;
  $("zoom").showModal();
  draw();
}

function drawZoom() {
  const cell = state.cells[at];
  const source = `large/${cell.seed}`;
  if ($("zoom-img").getAttribute("src") !== source) $("zoom-img").src = source;
  $("zoom-img").alt = `Picture ${at + 1}`;
  $("zoom-state").textContent = `${at + 1} of ${state.cells.length}: ${WORDS[kindOf(cell)]}`;
}

function theme() {
  const root = document.documentElement;
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
}

function check() {
  turn(state.mode === "check" ? "label" : "check");
}

const KEYS = {
  y: () => say(true), n: () => say(false), delete: () => answer(at, null), backspace: () => answer(at, null),
  arrowright: () => move(1), arrowleft: () => move(-1), arrowdown: () => move($("zoom").open ? 1 : columns()), arrowup: () => move($("zoom").open ? -1 : -columns()),
  u: () => post("undo", null), t: theme, "?": () => $("help").showModal(),
  s: () => next(false), enter: () => next(true), c: () => { if (!$("mode-check").disabled) check(); },
  " ": () => ($("zoom").open ? $("zoom").close() : zoom(at)),
};
const IN_ZOOM = new Set(["y", "n", "delete", "backspace", "arrowright", "arrowleft", "arrowdown", "arrowup", "u", " "]);

addEventListener("keydown", (event) => {
  if (!state || over || $("help").open || event.altKey || event.metaKey) return;
  const key = event.ctrlKey ? (event.key.toLowerCase() === "z" ? "u" : "") : event.key.toLowerCase();
  const onButton = event.target.closest("button:not(.cell)");
  if (onButton && (key === "enter" || key === " ")) return; // Presses the button.
  if (!KEYS[key] || ($("zoom").open && !IN_ZOOM.has(key))) return;
  if (!state.cells.length && !["u", "t", "?", "c", "s", "enter"].includes(key)) return;
  event.preventDefault();
  KEYS[key]();
});

$("undo").addEventListener("click", () => post("undo", null));
$("skip").addEventListener("click", () => next(false));
$("next").addEventListener("click", () => next(true));
$("finish").addEventListener("click", () => post("finish", null));
$("mode-label").addEventListener("click", () => turn("label"));
$("mode-check").addEventListener("click", () => turn("check"));
$("theme").addEventListener("click", theme);
$("help-open").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
$("zoom-yes").addEventListener("click", () => say(true));
$("zoom-no").addEventListener("click", () => say(false));
$("zoom").addEventListener("click", (event) => { if (event.target === $("zoom")) $("zoom").close(); });
$("zoom").addEventListener("close", focus);

if (matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.dataset.theme = "dark";
load().then(() => { draw(); focus(); });
setInterval(async () => {
  if (!state || over || waiting || state.drawn >= state.pool) return;
  try {
    const said = await (await fetch("state")).json();
    if (!waiting) { accept(said, false); draw(); }
  } catch (error) {
    return; // The next action says so.
  }
}, 3000);
