"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const pairs = study.design === "forced-choice";
const total = study.total;
const FORMAT = "ssmdiff-turing-answers-1";
const STORE = "ssmdiff-turing/" + study.study;
const WORDS = pairs ? ["a", "b"] : ["real", "synthetic"];
const SURE = ["low", "medium", "high"];
const unit = pairs ? "pair" : "image";
const $ = (id) => document.getElementById(id);

// SHA-256 in full, since crypto.subtle is not there in every browser on a page opened from a file.
function sha256(text) {
  const bytes = new TextEncoder().encode(text);
  const words = new Uint32Array((((bytes.length + 8) >> 6) + 1) * 16);
  bytes.forEach((b, i) => { words[i >> 2] |= b << (24 - 8 * (i & 3)); });
  words[bytes.length >> 2] |= 0x80 << (24 - 8 * (bytes.length & 3));
  words[words.length - 1] = bytes.length * 8;
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const root = (p, power) => { const r = Math.pow(p, power); return ((r - Math.floor(r)) * 4294967296) | 0; };
  const k = primes.map((p) => root(p, 1 / 3));
  const h = primes.slice(0, 8).map((p) => root(p, 1 / 2));
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  const w = new Int32Array(64);
  for (let start = 0; start < words.length; start += 16) {
    for (let i = 0; i < 64; i++) {
      if (i < 16) { w[i] = words[start + i]; continue; }
      const a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ (a >>> 3)) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ (b >>> 10));
    }
    let [a, b, c, d, e, f, g, last] = h;
    for (let i = 0; i < 64; i++) {
      const t1 = (last + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
      const t2 = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [a, b, c, d, e, f, g, last] = [(t1 + t2) | 0, a, b, c, (d + t1) | 0, e, f, g];
    }
    [a, b, c, d, e, f, g, last].forEach((x, i) => { h[i] = (h[i] + x) | 0; });
  }
  return h.map((x) => (x >>> 0).toString(16).padStart(8, "0")).join("");
}

// What is kept: {doctor: [answer or null, ...]} by the number of the image in this page.
let kept = Object.create(null);
let keeps = true;
function load() {
  try {
    const found = JSON.parse(localStorage.getItem(STORE) || "{}");
    for (const [name, given] of Object.entries(found)) if (wellFormed(given)) kept[name] = given;
  } catch { keeps = false; }
}
function keep() {
  try { localStorage.setItem(STORE, JSON.stringify(kept)); keeps = true; } catch { keeps = false; }
}
function wellFormed(given) {
  return Array.isArray(given) && given.length === total && given.every((a) => a === null ||
    (a && typeof a === "object" && (a.judged === "" || WORDS.includes(a.judged)) &&
     (a.confidence === "" || SURE.includes(a.confidence)) && typeof a.at === "string"));
}
const whole = (a) => a !== null && a.judged !== "" && a.confidence !== "";

let doctor = "", order = [], place = 0, unsaved = false;
const mine = () => kept[doctor];
const count = (given) => given.filter(whole).length;

// Each doctor has an order of their own, so that what tiredness does falls on other images.
function orderOf(name) {
  const keyed = Array.from({ length: total }, (_, i) => [sha256([study.study, name.toLowerCase(), i].join("\n")), i]);
  return keyed.sort((a, b) => (a[0] < b[0] ? -1 : 1)).map((pair) => pair[1]);
}

function show(id) {
  for (const other of ["start", "judge", "end"]) $(other).hidden = other !== id;
  window.scrollTo(0, 0);
}

function showStart() {
  doctor = "";
  $("kept").replaceChildren(...Object.keys(kept).sort().map((name) => {
    const line = document.createElement("li"), text = document.createElement("span"), button = document.createElement("button");
    text.textContent = name + ": " + count(kept[name]) + " of " + total;
    button.type = "button";
    button.textContent = "Go on";
    button.setAttribute("aria-label", "Go on as " + name);
    button.addEventListener("click", () => begin(name));
    line.append(text, button);
    return line;
  }));
  $("keptBox").hidden = Object.keys(kept).length === 0;
  $("trouble").textContent = keeps ? "" :
    "This browser keeps nothing for this page: save your answers to a file before you close it.";
  $("name").value = "";
  show("start");
}

function begin(given) {
  const name = given.trim().replace(/\s+/g, " ");
  if (!name) return;
  doctor = Object.keys(kept).find((other) => other.toLowerCase() === name.toLowerCase()) || name;
  kept[doctor] = kept[doctor] || Array(total).fill(null);
  order = orderOf(doctor);
  const open = order.findIndex((i) => !whole(mine()[i]));
  if (open < 0) { showEnd(); return; }
  place = open;
  showImage();
}

function showImage() {
  const i = order[place], answer = mine()[i];
  $("imageA").src = study.pictures[pairs ? 2 * i : i];
  if (pairs) $("imageB").src = study.pictures[2 * i + 1];
  $("place").textContent = (pairs ? "Pair " : "Image ") + (place + 1) + " of " + total;
  $("doctor").textContent = doctor;
  $("bar").value = count(mine());
  for (const b of document.querySelectorAll("[data-judged]")) b.setAttribute("aria-pressed", String(!!answer && answer.judged === b.dataset.judged));
  for (const b of document.querySelectorAll("[data-confidence]")) b.setAttribute("aria-pressed", String(!!answer && answer.confidence === b.dataset.confidence));
  $("back").disabled = place === 0;
  const done = count(mine());
  $("state").textContent = done + " of " + total + " answered" + (keeps ? ", kept in this browser" : "; this browser keeps nothing, save them to a file");
  show("judge");
  fit();
}

function choose(part, value) {
  const i = order[place];
  const answer = Object.assign({ judged: "", confidence: "" }, mine()[i]);
  const before = whole(answer);
  answer[part] = value;
  answer.at = new Date().toISOString();
  mine()[i] = answer;
  unsaved = true;
  keep();
  showImage();
  // At once: a key that comes a moment later is meant for the next image.
  if (!before && whole(answer)) next();
}

function next() {
  if (place + 1 < total) { place++; showImage(); } else showEnd();
}
function back() {
  if (place > 0) { place--; showImage(); }
}

function showEnd() {
  const done = count(mine()), open = total - done;
  $("endTitle").textContent = open ? done + " of " + total + " answered" : "All " + total + " answered. Thank you, " + doctor + ".";
  $("endText").textContent = open
    ? "Your answers are kept in this browser" + (keeps ? "" : " only until you close it") + ". Go on now or later, or save what there is."
    : "Save your answers to a file and send it to whoever gave you this page.";
  if (!keeps && !open) $("endText").textContent += " This browser keeps nothing: save them before you close the page.";
  $("on").textContent = open ? "Go on" : "Look at them again";
  $("saved").textContent = "";
  $("save").classList.toggle("main", !open);
  $("on").classList.toggle("main", !!open);
  show("end");
  $(open ? "on" : "save").focus({ preventScroll: true });
}

function fileOf() {
  const answers = mine().map((a) => (whole(a) ? { judged: a.judged, confidence: a.confidence, at: a.at } : null));
  const fields = { format: FORMAT, study: study.study, design: study.design, doctor, answers };
  return Object.assign(fields, { digest: digest(fields), saved: new Date().toISOString() });
}
function digest(f) {
  const lines = f.answers.map((a) => (a === null ? "-" : a.judged + " " + a.confidence + " " + a.at));
  return sha256([f.format, f.study, f.design, f.doctor, ...lines].join("\n"));
}
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(fileOf(), null, 1)], { type: "application/json" }));
  const word = doctor.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "") || "doctor";
  link.download = "answers-" + word + "-" + study.study.slice(0, 8) + ".json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  unsaved = false;
  $("saved").textContent = "Saved as " + link.download + ", where this browser puts downloads.";
}

// A file of answers joins what is kept: of two answers to one image the later one stays.
function take(text) {
  let f;
  try { f = JSON.parse(text); } catch { return "This file holds no answers."; }
  if (!f || f.format !== FORMAT || typeof f.doctor !== "string" || !f.doctor.trim()) return "This file holds no answers.";
  if (f.study !== study.study) return "These answers belong to another page.";
  if (!wellFormed(f.answers) || f.answers.some((a) => a && !whole(a)) || f.digest !== digest(f)) return "This file was changed after it was saved.";
  const name = Object.keys(kept).find((other) => other.toLowerCase() === f.doctor.toLowerCase()) || f.doctor;
  const there = kept[name] || Array(total).fill(null);
  kept[name] = there.map((a, i) => {
    const b = f.answers[i];
    return b !== null && (!whole(a) || b.at > a.at) ? b : a;
  });
  keep();
  begin(name);
  return "";
}

// As large as the window allows, the same for every image.
function fit() {
  const stage = $("stage"), image = $("imageA"), narrow = matchMedia("(max-width: 52rem)").matches;
  const ratio = study.width / study.height, n = pairs ? 2 : 1;
  const wide = (stage.clientWidth - (narrow ? 2 : 36)) / n;
  const tall = (narrow ? window.innerHeight * 0.5 : stage.clientHeight - 24) - (pairs ? 32 : 0);
  stage.style.setProperty("--side", Math.max(64, Math.floor(Math.min(wide, tall * ratio))) + "px");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.judged) choose("judged", button.dataset.judged);
  if (button.dataset.confidence) choose("confidence", button.dataset.confidence);
});
document.addEventListener("keydown", (event) => {
  if ($("judge").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  const judged = { a: "a", b: "b", r: "real", s: "synthetic" }[key];
  if (judged && WORDS.includes(judged)) choose("judged", judged);
  else if ("123".includes(key) && key.length === 1) choose("confidence", SURE[Number(key) - 1]);
  else if (key === "arrowleft") back();
  else if (key === "arrowright") next();
  else return;
  event.preventDefault();
});
$("who").addEventListener("submit", (event) => { event.preventDefault(); begin($("name").value); });
$("file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) $("trouble").textContent = take(await file.text());
  event.target.value = "";
});
$("back").addEventListener("click", back);
$("next").addEventListener("click", next);
$("stop").addEventListener("click", showEnd);
$("save").addEventListener("click", save);
$("other").addEventListener("click", showStart);
$("on").addEventListener("click", () => {
  const open = order.findIndex((i) => !whole(mine()[i]));
  place = open < 0 ? 0 : open;
  showImage();
});
window.addEventListener("resize", () => { if (!$("judge").hidden) fit(); });
window.addEventListener("beforeunload", (event) => { if (unsaved && !keeps) event.preventDefault(); });
load();
showStart();
