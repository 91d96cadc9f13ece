
"use strict";
// Draws the flame graph. Boxes are columns in the order of levels, so each level is a stretch of the columns from left to right: finding and
// drawing boxes are binary searches in a level, and the cost of a picture is bounded by its pixels, not by the number of boxes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (id) => document.getElementById(id);
  const [view, canvas, spacer, tip, search] = ["view", "canvas", "spacer", "tip", "search"].map(element);
  const count = data.parent.length;
  const parent = new Int32Array(count), depth = new Int32Array(count), left = new Float64Array(count);
  const total = Float64Array.from(data.total), own = Float64Array.from(data.own), fn = Int32Array.from(data.function);
  const kindOf = (box) => data.functions[fn[box]][2];
  const suspect = new Uint8Array(count); // 1: lies above a mark, so the stack is not whole
  const levels = [0];
  {
    const next = new Float64Array(count);
    parent[0] = -1;
    for (let box = 1; box < count; box++) {
      const above = (parent[box] = box - data.parent[box]);
      depth[box] = depth[above] + 1;
      if (depth[box] === levels.length) levels.push(box);
      left[box] = next[above];
      next[above] += total[box];
      next[box] = left[box];
      suspect[box] = suspect[above] || kindOf(box) === "mark" ? 1 : 0;
    }
    levels.push(count);
  }
  const whole = total[0] || 1;
  const ROW = 19, TEXT = 3, NARROW = 0.6;
  const state = { focus: 0, hover: -1, cursor: -1, flip: false, pattern: null, hits: null, share: 0 };
  const light = { program: "#f0b041", library: "#7cc4ec", kernel: "#5cc0a0", vdso: "#f3e96b", generated: "#da8ac2", unknown: "#c8c8c8", group: "#eaeaea", mark: "#f4b08c" };
  const dark = { program: "#a8741a", library: "#2f7aa6", kernel: "#238250", vdso: "#686824", generated: "#7d2c73", unknown: "#565656", group: "#30343b", mark: "#9a4a14" };
  const labels = { program: "program", library: "library", kernel: "kernel", vdso: "vDSO", generated: "generated code", unknown: "unknown place", group: "process", mark: "not whole, and why" };
  const isDark = () => document.documentElement.classList.contains("dark");
  const context = canvas.getContext("2d");
  const number = (value) => value.toLocaleString("en-US");
  const percent = (value) => (100 * value / whole).toFixed(2) + " %";

  function size() {
    const ratio = window.devicePixelRatio || 1;
    const width = view.clientWidth, height = view.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    spacer.style.height = Math.max(0, rows() * ROW - height) + "px";
    draw();
  }
  const rows = () => levels.length - 1;
  const rowTop = (level) => (state.flip ? (Math.max(rows() * ROW, view.clientHeight) - (level + 1) * ROW) : level * ROW) - view.scrollTop;

  // The first box of a level whose right edge lies beyond a place.
  function firstAt(level, place) {
    let low = levels[level], high = levels[level + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (left[middle] + total[middle] > place) high = middle; else low = middle + 1;
    }
    return low;
  }
  const range = () => [left[state.focus], left[state.focus] + total[state.focus]];

  let waiting = false;
  function draw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }
  function paint() {
    const width = view.clientWidth, height = view.clientHeight;
    const [from, to] = range();
    const scale = width / ((to - from) || 1);
    const colours = isDark() ? dark : light;
    context.clearRect(0, 0, width, height);
    context.font = "11.5px ui-monospace, Menlo, Consolas, monospace";
    context.textBaseline = "middle";
    const letter = context.measureText("m").width;
    for (let level = 0; level < rows(); level++) {
      const top = rowTop(level);
      if (top + ROW < 0 || top > height) continue;
      paintLevel(level, top, { from, to, scale, width, letter, colours });
    }
    canvas.dataset.boxes = String(count);
    canvas.dataset.focus = String(state.focus);
  }
  function paintLevel(level, top, frame) {
    const end = levels[level + 1];
    let box = firstAt(level, frame.from);
    while (box < end && left[box] < frame.to) {
      const x = Math.max(0, (left[box] - frame.from) * frame.scale);
      const right = Math.min(frame.width, (left[box] + total[box] - frame.from) * frame.scale);
      if (right - x < NARROW) {
        // Boxes too narrow to be told apart become one grey pixel; the next box to look at lies beyond it.
        context.fillStyle = isDark() ? "#555" : "#bbb";
        context.fillRect(x, top, 1, ROW - 1);
        box = Math.max(box + 1, firstAt(level, frame.from + (x + 1) / frame.scale));
        continue;
      }
      paintBox(box, x, right, top, frame);
      box++;
    }
  }
  function paintBox(box, x, right, top, frame) {
    const kind = kindOf(box), width = right - x, faded = total[box] < whole && left[box] <= frame.from && left[box] + total[box] >= frame.to && box !== state.focus && depth[box] < depth[state.focus];
    context.globalAlpha = faded ? 0.55 : 1;
    context.fillStyle = state.hits && state.hits[fn[box]] ? (isDark() ? "#c44bd6" : "#e36bf2") : frame.colours[kind];
    context.fillRect(x, top, Math.max(width - 0.5, 0.5), ROW - 1);
    if (kind === "mark" || suspect[box]) hatch(x, top, width, kind === "mark");
    if (box === state.hover || box === state.cursor) {
      context.strokeStyle = isDark() ? "#fff" : "#000";
      context.lineWidth = box === state.cursor ? 2 : 1;
      context.strokeRect(x + 1, top + 1, Math.max(width - 2.5, 0.5), ROW - 3);
    }
    const room = Math.floor((width - 2 * TEXT) / frame.letter);
    if (room >= 3) {
      const name = data.functions[fn[box]][0];
      context.fillStyle = isDark() ? "#f4f4f4" : "#111";
      context.fillText(name.length <= room ? name : name.slice(0, room - 1) + "\u2026", x + TEXT, top + ROW / 2);
    }
    context.globalAlpha = 1;
  }
  // Never colour alone: a mark is hatched all over, the boxes above it along their lower edge.
  function hatch(x, top, width, full) {
    if (width < 2) return;
    context.save();
    context.beginPath();
    context.rect(x, full ? top : top + ROW - 4, width - 0.5, full ? ROW - 1 : 3);
    context.clip();
    context.strokeStyle = "#d55e00";
    context.lineWidth = 1.5;
    context.beginPath();
    for (let at = x - ROW; at < x + width; at += 6) { context.moveTo(at, top + ROW); context.lineTo(at + ROW, top); }
    context.stroke();
    context.restore();
  }

  function boxAt(event) {
    const area = canvas.getBoundingClientRect();
    const y = event.clientY - area.top + view.scrollTop;
    const level = Math.floor((state.flip ? Math.max(rows() * ROW, view.clientHeight) - y : y) / ROW);
    if (level < 0 || level >= rows()) return -1;
    const [from, to] = range();
    const place = from + (event.clientX - area.left) / area.width * (to - from);
    const box = firstAt(level, place);
    return box < levels[level + 1] && left[box] <= place ? box : -1;
  }
  function describe(box) {
    const [name, module, kind] = data.functions[fn[box]];
    const where = kind === "group" || kind === "mark" || !module ? "" : " (" + module + ")";
    const warning = suspect[box] && kind !== "mark" ? "; stacks that are not whole" : "";
    return name + where + "\n" + number(total[box]) + " samples, " + percent(total[box]) + "; self " + number(own[box]) + ", " + percent(own[box]) + warning;
  }
  function zoom(box) {
    state.focus = state.cursor = box;
    element("detail").textContent = describe(box);
    keepState();
    draw();
  }

  function find(text) {
    let test = null;
    search.classList.remove("wrong");
    if (text.length > 2 && text.startsWith("/") && text.endsWith("/")) {
      try { const expression = new RegExp(text.slice(1, -1), "i"); test = (name) => expression.test(name); } catch { search.classList.add("wrong"); }
    } else if (text) {
      const wanted = text.toLowerCase();
      test = (name) => name.toLowerCase().includes(wanted);
    }
    state.pattern = test ? text : null;
    state.hits = test ? Uint8Array.from(data.functions, ([name, module]) => (test(name) || (module && test(module)) ? 1 : 0)) : null;
    element("matches").textContent = "";
    if (state.hits) {
      // A sample counts once however many of its calls match: only the outermost matching box of a path is added.
      const inside = new Uint8Array(count);
      let sum = 0;
      for (let box = 0; box < count; box++) {
        inside[box] = box && inside[parent[box]] ? 1 : 0;
        if (!inside[box] && state.hits[fn[box]]) { inside[box] = 1; sum += total[box]; }
      }
      element("matches").textContent = percent(sum) + " matches";
    }
    keepState();
    draw();
  }

  // The state of the view stands in the address, so that it can be kept and sent.
  function keepState() {
    const parts = new URLSearchParams();
    if (state.pattern) parts.set("s", state.pattern);
    if (state.focus) parts.set("f", String(state.focus));
    if (state.flip) parts.set("flip", "1");
    try { history.replaceState(null, "", "#" + parts); } catch { /* a page from a file may not be allowed to */ }
  }
  function restoreState() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const focus = Number(parts.get("f"));
    state.flip = parts.get("flip") === "1";
    if (Number.isInteger(focus) && focus > 0 && focus < count) zoom(focus);
    search.value = parts.get("s") || "";
    if (search.value) find(search.value);
  }

  function move(key) {
    const box = Math.max(state.cursor, 0);
    const up = state.flip ? "ArrowDown" : "ArrowUp", down = state.flip ? "ArrowUp" : "ArrowDown";
    let next = -1;
    if (key === up) next = parent[box];
    if (key === down && depth[box] + 1 < rows()) {
      const child = firstAt(depth[box] + 1, left[box]);
      if (child < levels[depth[box] + 2] && parent[child] === box) next = child;
    }
    if (key === "ArrowLeft" && box > levels[depth[box]]) next = box - 1;
    if (key === "ArrowRight" && box + 1 < levels[depth[box] + 1]) next = box + 1;
    if (next < 0) return;
    state.cursor = next;
    const [from, to] = range();
    if (left[next] < from || left[next] + total[next] > to) state.focus = parent[next] < 0 ? 0 : common(next);
    const top = rowTop(depth[next]);
    if (top < 0) view.scrollTop += top;
    if (top + ROW > view.clientHeight) view.scrollTop += top + ROW - view.clientHeight;
    element("detail").textContent = describe(next);
    draw();
  }
  // The nearest caller of a box that also holds what is in focus, so that both are on the screen.
  function common(box) {
    let at = state.focus;
    while (at > 0 && !(left[at] <= left[box] && left[box] + total[box] <= left[at] + total[at])) at = parent[at];
    return at;
  }
  function flip() { state.flip = !state.flip; view.scrollTop = state.flip ? view.scrollHeight : 0; keepState(); draw(); }
  function theme() { document.documentElement.classList.toggle("dark"); draw(); }

  view.addEventListener("mousemove", (event) => {
    const box = boxAt(event);
    if (box !== state.hover) { state.hover = box; draw(); }
    tip.hidden = box < 0;
    if (box < 0) return;
    tip.textContent = describe(box);
    tip.style.left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = (event.clientY + 18 + tip.offsetHeight > window.innerHeight ? event.clientY - tip.offsetHeight - 8 : event.clientY + 18) + "px";
    canvas.style.cursor = "pointer";
  });
  view.addEventListener("mouseleave", () => { state.hover = -1; tip.hidden = true; draw(); });
  view.addEventListener("click", (event) => { const box = boxAt(event); if (box >= 0) zoom(box); });
  view.addEventListener("scroll", draw);
  search.addEventListener("input", () => find(search.value));
  element("reset").addEventListener("click", () => zoom(0));
  element("flip").addEventListener("click", flip);
  element("theme").addEventListener("click", theme);
  window.addEventListener("resize", size);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey && event.key === "f" || event.key === "/" && event.target !== search) { event.preventDefault(); search.focus(); search.select(); return; }
    if (event.key === "Escape") { if (event.target === search) { search.value = ""; find(""); view.focus(); } else zoom(0); return; }
    if (event.target === search || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow")) { event.preventDefault(); move(event.key); }
    if (event.key === "Enter" && event.target === view) zoom(Math.max(state.cursor, 0));
    if (event.key === "i") flip();
    if (event.key === "d") theme();
  });

  function head() {
    element("title").textContent = data.title || "Flame graph";
    element("machine").textContent = data.machine;
    const unsure = Math.max(0, data.whole - data.verdicts.reliable);
    const unsureOfWhole = Math.max(0, data.verdicts.unreliable - data.cut);
    const out = data.left_out ? "; " + number(data.left_out) + " smaller boxes are left out" : "";
    element("summary").textContent = number(data.samples) + " samples in " + data.duration_s.toFixed(1) + " s, " + number(data.lost) + " lost; " +
      share(data.whole) + " of user stacks whole, " + share(data.cut) + " cut, " + share(data.verdicts.reliable) + " reliable; " +
      number(data.none) + " samples without user stack" + out;
    const parts = [["whole", data.whole - Math.min(unsureOfWhole, unsure)], ["unsure", Math.min(unsureOfWhole, unsure)], ["cut", data.cut], ["none", data.none]];
    for (const [name, samples] of parts) {
      if (!samples) continue;
      const bar = document.createElement("span");
      bar.className = "q-" + name;
      bar.style.flex = String(samples);
      bar.title = name + ": " + number(samples) + " samples";
      element("quality").append(bar);
    }
    const causes = data.stops.filter((stop) => stop.ending === "cut").map((stop) => stop.stop + " " + number(stop.samples));
    element("quality").setAttribute("aria-label", "Whole " + share(data.whole) + ", cut " + share(data.cut) + (causes.length ? ": " + causes.join(", ") : ""));
    const shown = new Set(data.functions.map((entry) => entry[2]));
    for (const kind of Object.keys(labels)) {
      if (!shown.has(kind)) continue;
      const entry = document.createElement("span"), patch = document.createElement("i");
      patch.className = "k-" + kind;
      entry.append(patch, labels[kind]);
      element("legend").append(entry);
    }
  }
  const share = (samples) => (100 * samples / (data.samples - data.none || 1)).toFixed(1) + " %";

  if (window.matchMedia("(prefers-color-scheme: dark)").matches) document.documentElement.classList.add("dark");
  head();
  size();
  restoreState();
})();
