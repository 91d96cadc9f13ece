// What the page computes without a browser, held against the plain way to say it. Run by `npm test`; Chromium's part is in tests/web.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeData } from "../src/api";
import { marks, ticks } from "../src/axis";
import { Boxes } from "../src/boxes";
import { changeColour } from "../src/palette";
import { type Window, paint, paintTimes } from "../src/painter";
import { among, exactly, file, matcher, percent, points, samples, unpattern } from "../src/words";

interface Call { name: string; own: number; calls: Call[] }
const call = (name: string, own: number, ...calls: Call[]): Call => ({ name, own, calls });
const total = (one: Call): number => one.own + one.calls.reduce((sum, next) => sum + total(next), 0);

// The columns that the server sends, level by level; `parent` is how many boxes back the caller stands.
function columns(root: Call, kinds: Record<string, string> = {}): TreeData {
  const order: { one: Call; parent: number }[] = [{ one: root, parent: 0 }];
  for (let at = 0; at < order.length; at++) for (const next of order[at]!.one.calls) order.push({ one: next, parent: at });
  const name = [...new Set(order.map(({ one }) => one.name))];
  return {
    name, module: name.map(() => "/bin/a"), kind: name.map((each) => kinds[each] ?? "program"), place: name.map(() => ""),
    parent: order.map(({ parent }, at) => (at ? at - parent : 0)), function: order.map(({ one }) => name.indexOf(one.name)),
    own: order.map(({ one }) => one.own), total: order.map(({ one }) => total(one)), left_out: 0,
  };
}

const TREE = call("all", 0, call("main", 1, call("read", 4), call("parse", 2, call("read", 3))), call("idle", 5));

// Numbers that look random and are the same at every run (Numerical Recipes, section 7.1: a linear congruential generator).
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => { state = (Math.imul(state, 1664525) + 1013904223) >>> 0; return Math.floor((state / 2 ** 32) * below); };
}
function grown(next: (below: number) => number, depth: number): Call {
  const calls = depth ? Array.from({ length: next(4) }, () => grown(next, depth - 1)) : [];
  return call(`f${next(6)}`, next(5) + (calls.length ? 0 : 1), ...calls);
}

test("boxes lie side by side within their caller, and each level is one run", () => {
  for (let seed = 0; seed < 200; seed++) {
    const boxes = new Boxes(columns(grown(random(seed), 6)));
    for (let box = 1; box < boxes.count; box++) {
      const above = boxes.parent[box]!;
      assert.equal(boxes.depth[box], boxes.depth[above]! + 1);
      assert.ok(boxes.left[box]! >= boxes.left[above]!);
      assert.ok(boxes.left[box]! + boxes.total[box]! <= boxes.left[above]! + boxes.total[above]!);
      if (boxes.parent[box - 1] === above && box - 1 > 0) assert.equal(boxes.left[box], boxes.left[box - 1]! + boxes.total[box - 1]!);
    }
    for (let level = 0; level < boxes.rows; level++)
      for (let box = boxes.levels[level]!; box < boxes.levels[level + 1]!; box++) assert.equal(boxes.depth[box], level);
  }
});

test("the box under a place is the one that covers it", () => {
  for (let seed = 0; seed < 100; seed++) {
    const boxes = new Boxes(columns(grown(random(seed), 5)));
    for (let level = -1; level <= boxes.rows; level++)
      for (let place = 0.5; place < boxes.whole; place++) {
        const all = Array.from({ length: boxes.count }, (_, box) => box);
        const wanted = all.find((box) => boxes.depth[box] === level && boxes.left[box]! <= place && place < boxes.left[box]! + boxes.total[box]!);
        assert.equal(boxes.at(level, place), wanted ?? -1);
      }
  }
});

test("a sample that matches twice counts once", () => {
  const boxes = new Boxes(columns(TREE));
  boxes.search(matcher("main")!);
  assert.equal(boxes.matched, 10);
  boxes.search((name) => name === "read" || name === "parse");
  assert.equal(boxes.matched, 4 + 5);
  boxes.search(null);
  assert.equal(boxes.matched, 0);
  assert.equal(boxes.hits, null);
});

test("what stands on a mark is suspect", () => {
  const boxes = new Boxes(columns(call("all", 0, call("cut", 0, call("main", 2)), call("main", 3)), { cut: "mark" }));
  const suspect = Array.from({ length: boxes.count }, (_, box) => `${boxes.name(box)}${boxes.suspect[box] ? "!" : ""}`);
  assert.deepEqual(suspect, ["all", "cut!", "main", "main!"]);
});

test("a box is found again in a tree that has grown", () => {
  const before = new Boxes(columns(TREE));
  const later = new Boxes(columns(call("all", 0, call("exec", 9), call("idle", 5), call("main", 1, call("parse", 2, call("read", 30)), call("read", 4)))));
  for (let box = 0; box < before.count; box++) {
    const found = later.same(before, box);
    const way = (boxes: Boxes, at: number): string => (at > 0 ? `${way(boxes, boxes.parent[at]!)};${boxes.name(at)}` : "");
    assert.equal(way(later, found), way(before, box));
  }
  const gone = new Boxes(columns(call("all", 0, call("main", 1))));
  assert.equal(gone.name(gone.same(before, before.count - 1)), "main");
});

test("the caller of two boxes holds both", () => {
  const boxes = new Boxes(columns(TREE));
  for (let one = 0; one < boxes.count; one++)
    for (let other = 0; other < boxes.count; other++) {
      const up = (at: number): number[] => (at > 0 ? [at, ...up(boxes.parent[at]!)] : [0]);
      assert.equal(boxes.common(one, other), up(other).find((at) => up(one).includes(at)));
    }
});

test("a search is text, or an expression between slashes", () => {
  assert.equal(matcher(""), null);
  assert.equal(matcher("/[/"), undefined);
  assert.equal(matcher("READ")!("pread64"), true);
  assert.equal(matcher("/^read/")!("pread64"), false);
  assert.equal(matcher("a.c")!("abc"), false);
});

test("a value as a pattern is that value again", () => {
  for (const value of ["/usr/bin/[", "a*b?c", "[[]", "plain", ""]) assert.equal(unpattern(exactly(value)), value);
  assert.equal(exactly("a*b"), "a[*]b");
});

test("numbers and names as people read them", () => {
  assert.equal(percent(1, 3), "33.33 %");
  assert.equal(percent(1, 0), "-");
  assert.equal(percent(0, 3), "0.00 %");
  assert.equal(percent(3, 3), "100.00 %");
  assert.equal(points(-0.0125), "\u22121.25");
  assert.equal(file("/usr/lib/libc.so.6"), "libc.so.6");
  assert.equal(file("/"), "/");
});

test("what is rounded never becomes nothing or everything", () => {
  assert.equal(percent(1, 1e6), "< 0.01 %");
  assert.equal(percent(1e6 - 1, 1e6), "> 99.99 %");
  assert.equal(percent(1, 1e6, 1), "< 0.1 %");
  for (let part = 1; part < 2e4; part++) assert.ok(!["0.00 %", "100.00 %"].includes(percent(part, 2e4)), String(part));
  assert.deepEqual([0, 1, 2].map(samples), ["0 samples", "1 sample", "2 samples"]);
});

test("of boxes that are drawn as one it is known whether one of them matches, or stands on a mark", () => {
  for (let seed = 0; seed < 50; seed++) {
    const boxes = new Boxes(columns(grown(random(seed), 5), { f1: "mark" }));
    boxes.search((name) => name === "f3");
    for (let from = 0; from < boxes.count; from++)
      for (let to = from + 1; to <= boxes.count; to++) {
        const range = Array.from({ length: to - from }, (_, place) => from + place);
        assert.equal(boxes.anyHit(from, to), range.some((box) => boxes.name(box) === "f3"));
        assert.equal(boxes.anySuspect(from, to), range.some((box) => boxes.suspect[box] === 1));
      }
    boxes.search(null);
    assert.equal(boxes.anyHit(0, boxes.count), false);
  }
});

test("more and less have colours of their own, and nothing has none", () => {
  for (const dark of [false, true]) {
    assert.notEqual(changeColour(0.5, dark), changeColour(-0.5, dark));
    assert.equal(changeColour(0, dark), changeColour(0.0001, dark));
    assert.equal(changeColour(9, dark), changeColour(1, dark));
  }
});

test("the address holds the state, and gives it back", async () => {
  // state.ts listens to a window; a few words of one are enough here.
  Object.assign(globalThis, { window: { addEventListener() {} }, location: { hash: "" } });
  const { State } = await import("../src/state");
  const state = new State(new URLSearchParams("view=table&comm=a%26b&search=%2Fx%2F"));
  assert.equal(state.view, "table");
  assert.deepEqual(state.filter(), [["comm", "a&b"]]);
  const several = state.with({ guest: ["web", "db"], view: null });
  assert.equal(several.view, "flame");
  assert.deepEqual(new State(new URLSearchParams(several.text())).filter(), [["comm", "a&b"], ["guest", "web"], ["guest", "db"]]);
  assert.equal(state.hasFilter && !state.with({ comm: null }).hasFilter, true);
});

test("what is seen of a box is in the state at once, in the address when it rests, and ends with the box", async () => {
  const addresses: string[] = [];
  const take = (_: unknown, __: string, address: string) => { addresses.push(address); };
  Object.assign(globalThis, { history: { pushState: take, replaceState: take }, window: { addEventListener() {}, setTimeout, clearTimeout }, location: { hash: "" } });
  const { change, settle, state } = await import("../src/state");
  change({ focus: "3" });
  settle({ part: "0.1,0.2" });
  settle({ part: "0.2,0.3" });
  assert.equal(state().get("part"), "0.2,0.3");
  assert.equal(addresses.at(-1), "#focus=3");
  // A step that Back undoes: what was seen before it is kept first.
  change({ view: "table", focus: null });
  assert.deepEqual(addresses, ["#focus=3", "#focus=3&part=0.2%2C0.3", "#view=table"]);
  change({ focus: "4", part: "0.5,0.6" });
  assert.equal(state().get("part"), "0.5,0.6");
});

test("times stand at round numbers, inside what is seen, and not too close", () => {
  for (const [from, to] of [[0, 8], [0.0123, 0.0127], [99.5, 160], [3, 3.000004], [0, 3600]] as const) {
    const { first, step, digits } = ticks(from, to, 1300);
    assert.ok(first >= from - 1e-9 && first < from + step, `${from} ${first}`);
    assert.ok((to - from) / step <= 13 && (to - from) / step >= 4, `${from} to ${to}: ${step}`);
    assert.notEqual(first.toFixed(digits), (first + step).toFixed(digits));
  }
});

test("the first and the last line of a time axis have their numbers, and no number lies on another or on a line", () => {
  const wide = (text: string) => 7 * text.length, next = random(7);
  for (let tried = 0; tried < 500; tried++) {
    const from = next(1e6) / 1000, to = from + (1 + next(1e5)) / 1e4, width = 400 + next(1500), found = marks(from, to, width, wide);
    assert.ok(found.length && found[0]!.left !== null && found.at(-1)!.left !== null, `${from} to ${to} on ${width}`);
    let free = 0;
    for (const { text, left } of found) {
      if (left === null) continue;
      assert.ok(left >= free && left + wide(text) <= width, `${from} to ${to} on ${width}: ${text}`);
      free = left + wide(text);
      assert.ok(found.every(({ x }) => x < left || x >= free));
    }
  }
});

test("a chart's first row has times and no name", () => {
  const written: string[] = [], picture = { measureText: (text: string) => ({ width: 7 * text.length }), fillText: (text: string) => { written.push(text); } };
  const context = new Proxy(picture, { get: (of, name) => Reflect.get(of, name) ?? (() => {}) }) as unknown as CanvasRenderingContext2D;
  const data = columns(call("python3 (1)", 0, call("main", 400_000)));
  const seen: Window = { from: 0, to: 400_000, width: 1200, height: 99, scroll: 0, flip: false, dark: false, hover: -1, cursor: -1, focus: 0 };
  paint(context, new Boxes({ ...data, left: [0, 0], start_s: 5.16 }), seen);
  assert.deepEqual(written.splice(0), ["main"]);
  assert.deepEqual(paintTimes(context, seen, 5.16), ["5.20 s", "5.25 s", "5.30 s", "5.35 s", "5.40 s", "5.45 s", "5.50 s", "5.55 s"]);
  written.length = 0;
  paint(context, new Boxes(data), seen);
  assert.deepEqual(written, ["python3 (1)", "main"]);
});

test("a share is of all samples, or of those that pass the filters", () => {
  assert.equal(among(false), "of all samples");
  assert.equal(among(true), "of the samples that pass the filters");
});
