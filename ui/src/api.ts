// What the server answers: the shapes of /api/, and one way to ask.

export interface Summary {
  name: string; samples: number; all_samples: number; weight: number; lost: number; duration_s: number; finished: boolean; trigger: string;
  frequency: number; command: string; hostname: string; kernel: string; arch: string; cpus: number;
  whole: number; cut: number; none: number; unknown: number; verdicts: Record<string, number>; guests: string[];
  added: { name: string; modules: string[]; asked: number; named: number }[];
}
export interface Names { name: string[]; module: string[]; kind: string[]; place: string[] }
export interface TreeData extends Names {
  parent: number[]; function: number[]; own: number[]; total: number[]; left_out: number;
  before?: number[]; after?: number[]; left?: number[];
  start_s?: number; // of a chart: when its first sample was taken
}
export interface FunctionsData extends Names { own: number[]; total: number[]; machine: string[]; weight: number }
export interface SandwichData { callers: TreeData; callees: TreeData; weight: number }
export interface TimelineData { duration_s: number; bins: number; series: { name: string; counts: number[] }[] }
export interface Cause { stop: string; ending: string; samples: number; meaning: string; advice: string; modules: { path: string; samples: number }[] }
export interface QualityData {
  samples: number; lost: number; counters: Record<string, number>; proved: number; assumed: number; cut: number; none: number; unknown: number;
  causes: Cause[]; reasons: { stop: string; samples: number; meaning: string; advice: string }[];
  unnamed: { path: string; kind: string; build_id: string; own: number; most: number; addresses: number; advice: string }[];
  machines: Machine[];
}
export interface Machine { name: string; choose: string; kernel: string; by: string; samples: number; whole: number; in_kernel: number; kernel_known: number; kernel_whole: number; vcpus: [number, number][] }
export interface DiffData {
  before: Summary; after: Summary; tree: TreeData;
  functions: { name: string[]; module: string[]; own_before: number[]; own_after: number[]; total_before: number[]; total_after: number[] };
}
export interface ChartData extends TreeData { threads: [number, string, number][]; thread: number; start_s: number; samples: number; left_out_samples: number }
export type Choices = Record<string, [string, number][]>;

export type Parameters = [string, string][];

// How many questions are unanswered, and what is to be done when none is.
let open = 0;
const idle = new Set<() => void>();
export const waiting = () => open > 0;
export const onIdle = (done: () => void) => { idle.add(done); };

// A server that does not answer, which is something else than one that refuses.
export class Unreachable extends Error {}
let hear: (reached: boolean) => void = () => {};
export const onReached = (tell: (reached: boolean) => void) => { hear = tell; };

// What the page asks for before it can show it: the answers are on their way while the page is made.
const early = new Map<string, Promise<Response>>();
const addressOf = (view: string, parameters: Parameters) => `/api/${view}?${new URLSearchParams(parameters)}`;
export function askEarly(view: string, parameters: Parameters): void {
  const sent = request(addressOf(view, parameters));
  sent.catch(() => undefined);
  early.set(addressOf(view, parameters), sent);
}
export const forgetEarly = () => early.clear();
const request = (address: string, signal?: AbortSignal) => fetch(address, { signal: signal ?? null, headers: { accept: "application/json" } });

export async function ask<T>(view: string, parameters: Parameters, signal?: AbortSignal): Promise<T> {
  open++;
  try {
    return await answer<T>(view, parameters, signal);
  } finally {
    if (!--open) for (const done of idle) done();
  }
}

async function answer<T>(view: string, parameters: Parameters, signal?: AbortSignal): Promise<T> {
  const address = addressOf(view, parameters), sent = early.get(address);
  early.delete(address);
  let found: Response;
  try {
    found = await (sent ?? request(address, signal));
  } catch (error) {
    if (signal?.aborted) throw error;
    hear(false);
    throw new Unreachable("The server does not answer.");
  }
  hear(true);
  if (found.ok) return (await found.json()) as T;
  if (found.status === 401) throw new Error("The server does not know this browser any more: open the address that it printed.");
  const text = await found.text();
  let message = text;
  try { message = (JSON.parse(text) as { error: string }).error; } catch { /* plain text */ }
  throw new Error(message);
}
