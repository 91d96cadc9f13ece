// A call tree as columns, level by level and from left to right: finding a box is a binary search in its level.
import type { TreeData } from "./api";

export class Boxes {
  readonly count: number;
  readonly parent: Int32Array;
  readonly depth: Int32Array;
  readonly left: Float64Array;
  readonly total: Float64Array;
  readonly own: Float64Array;
  readonly fn: Int32Array;
  readonly suspect: Uint8Array; // 1: stands on a mark, so the stack is not whole
  readonly levels: number[] = [0];
  hits: Uint8Array | null = null;
  matched = 0;
  private readonly suspectBefore: Uint32Array; // how many of the boxes before each one are suspect
  private hitsBefore: Uint32Array | null = null;

  constructor(readonly data: TreeData) {
    const count = (this.count = data.parent.length);
    this.parent = new Int32Array(count);
    this.depth = new Int32Array(count);
    this.left = new Float64Array(count);
    this.suspect = new Uint8Array(count);
    this.suspectBefore = new Uint32Array(count + 1);
    // Not `from`, which goes through an iterator: five times as long for 100,000 boxes.
    const total = (this.total = new Float64Array(data.total)), fn = (this.fn = new Int32Array(data.function));
    this.own = new Float64Array(data.own);
    const { parent, depth, left, suspect, suspectBefore } = this, given = data.parent, lefts = data.left;
    const next = new Float64Array(count);
    const mark = Uint8Array.from(data.kind, (kind) => (kind === "mark" ? 1 : 0));
    if (count) parent[0] = -1;
    for (let box = 1; box < count; box++) {
      const above = (parent[box] = box - given[box]!), place = lefts ? lefts[box]! : next[above]!;
      depth[box] = depth[above]! + 1;
      if (depth[box] === this.levels.length) this.levels.push(box);
      left[box] = next[box] = place;
      next[above]! += total[box]!;
      suspect[box] = suspect[above]! | mark[fn[box]!]!;
      suspectBefore[box + 1] = suspectBefore[box]! + suspect[box]!;
    }
    this.levels.push(count);
  }

  get rows(): number { return this.levels.length - 1; }
  get whole(): number { return this.total[0] || 0; }
  name(box: number): string { return this.data.name[this.fn[box]!]!; }
  kind(box: number): string { return this.data.kind[this.fn[box]!]!; }
  module(box: number): string { return this.data.module[this.fn[box]!]!; }
  place(box: number): string { return this.data.place[this.fn[box]!]!; }

  // The first box of a level whose right edge lies beyond a place.
  firstAt(level: number, place: number): number {
    let low = this.levels[level]!, high = this.levels[level + 1]!;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.left[middle]! + this.total[middle]! > place) high = middle; else low = middle + 1;
    }
    return low;
  }

  at(level: number, place: number): number {
    if (level < 0 || level >= this.rows) return -1;
    const box = this.firstAt(level, place);
    return box < this.levels[level + 1]! && this.left[box]! <= place ? box : -1;
  }

  // Whether any of the boxes from one to before another one matches, or stands on a mark.
  anyHit(from: number, to: number): boolean { return !!this.hitsBefore && this.hitsBefore[to]! > this.hitsBefore[from]!; }
  anySuspect(from: number, to: number): boolean { return this.suspectBefore[to]! > this.suspectBefore[from]!; }

  // Marks what matches; a sample counts once, however many of its calls match.
  search(test: ((name: string) => boolean) | null): void {
    this.hits = test ? Uint8Array.from(this.data.name, (name, index) => (test(name) || test(this.data.module[index]!) ? 1 : 0)) : null;
    this.matched = 0;
    this.hitsBefore = null;
    if (!this.hits) return;
    const inside = new Uint8Array(this.count), before = (this.hitsBefore = new Uint32Array(this.count + 1));
    for (let box = 0; box < this.count; box++) {
      before[box + 1] = before[box]! + this.hits[this.fn[box]!]!;
      inside[box] = box && inside[this.parent[box]!] ? 1 : 0;
      if (!inside[box] && this.hits[this.fn[box]!]) { inside[box] = 1; this.matched += this.total[box]!; }
    }
  }

  // The box that is called as a box of another tree is, or its nearest caller that is here.
  same(other: Boxes, box: number): number {
    const way: number[] = [];
    for (let at = box; at > 0; at = other.parent[at]!) way.unshift(at);
    let found = 0;
    for (const at of way) {
      const next = this.child(found, other.name(at), other.module(at), other.kind(at));
      if (next < 0) break;
      found = next;
    }
    return found;
  }

  // The box that a box calls by that name; an address that got its name meanwhile is the widest one in its file.
  private child(box: number, name: string, module: string, kind: string): number {
    const level = this.depth[box]! + 1;
    let widest = -1;
    if (level >= this.rows) return -1;
    for (let at = this.firstAt(level, this.left[box]!); at < this.levels[level + 1]! && this.parent[at] === box; at++) {
      if (this.module(at) !== module) continue;
      if (this.name(at) === name && this.kind(at) === kind) return at;
      if (widest < 0 || this.total[at]! > this.total[widest]!) widest = at;
    }
    return /\+0x[0-9a-f]+$/.test(name) ? widest : -1;
  }

  // The nearest caller of a box that also holds another one.
  common(box: number, other: number): number {
    let at = other;
    while (at > 0 && !(this.left[at]! <= this.left[box]! && this.left[box]! + this.total[box]! <= this.left[at]! + this.total[at]!)) at = this.parent[at]!;
    return Math.max(at, 0);
  }
}
