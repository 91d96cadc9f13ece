// A recording that grows: the server says when there is something new, and the page asks for its view again, no faster than it is answered.
import { useEffect, useState } from "preact/hooks";
import { ask, forgetEarly, onIdle, onReached, waiting } from "./api";

export interface Status { live: boolean; version: number; samples: number; recorded_s: number; sampling: boolean; finished: boolean }

let status: Status | null = null, shown = 0, held = false, gone: "" | "ended" | "refused" = "", since = 0, timer = 0;
const listeners = new Set<() => void>();
const tell = () => { for (const one of listeners) one(); };

// What the page shows: part of what every view is asked with. It changes with the recording, and when a server that was away answers again.
export function useVersion(): string {
  useChange();
  return `${shown}.${returned}`;
}

// A server that does not answer is asked every other second whether it does: a tunnel may come back, and what was chosen stays.
let lost = false, returned = 0, knocking = 0;
const KNOCK = 2000;
onReached((reached) => {
  if (reached !== lost) return;
  lost = !reached;
  if (reached) returned++;
  tell();
  if (lost) knock();
});
function knock(): void {
  window.clearTimeout(knocking);
  knocking = window.setTimeout(() => { if (lost) ask("live", []).catch(() => undefined).then(knock); }, KNOCK);
}

export function LostBar() {
  useChange();
  if (!lost) return null;
  return <p class="lost" id="lost" role="alert">The server does not answer: it has ended, or the connection to it is gone. What is on the screen is what came last.{" "}
    <button type="button" onClick={() => void ask("live", []).catch(() => undefined)}>Try again</button></p>;
}

// An answer said that what the server shows is another one now.
export function shownIs(version: number): void {
  if (status) status.version = Math.max(status.version, version);
  shown = version;
  tell();
}

function useChange(): void {
  const [, redraw] = useState(0);
  useEffect(() => {
    const changed = () => redraw((count) => count + 1);
    listeners.add(changed);
    return () => { listeners.delete(changed); };
  }, []);
}

// The next picture is asked for when the last one is there, and after a pause as long as that took: half the server's time is left to others.
function follow(): void {
  if (!status || held || document.hidden || status.version === shown || waiting() || timer) return;
  const took = Math.max(0, lastIdle - since);
  timer = window.setTimeout(() => {
    timer = 0;
    if (!status || held || waiting()) return;
    shown = status.version;
    since = performance.now();
    tell();
  }, Math.max(0, lastIdle + took - performance.now()));
}

let lastIdle = 0;
onIdle(() => { lastIdle = performance.now(); follow(); });
document.addEventListener("visibilitychange", follow);

export async function begin(): Promise<void> {
  const first = await ask<Status>("live", []);
  shown = first.version;
  if (!first.live) return;
  // They may be older than the version that this one told.
  forgetEarly();
  status = first;
  tell();
  const news = new EventSource("/api/events");
  news.onmessage = (event) => { status = JSON.parse(event.data as string) as Status; gone = ""; tell(); follow(); };
  // The browser tries again by itself; without a recorder there is nobody to answer.
  news.onerror = () => { gone = news.readyState === EventSource.CLOSED ? "refused" : "ended"; tell(); };
}

function hold(on: boolean): void {
  held = on;
  tell();
  follow();
}

async function say(word: "start" | "stop"): Promise<void> {
  // What did not arrive did not happen: the bar still says how it is.
  await fetch(`/api/${word}`, { method: "POST" }).catch(() => undefined);
}

function words(now: Status): string {
  if (gone === "refused") return "■ no news: too many pages are open; reload this one to see what is new";
  if (gone) return now.finished ? "■ finished; the page's server has ended" : "■ the recorder has ended; this is the last picture";
  return now.finished ? "■ finished" : now.sampling ? "● sampling" : "‖ sampling is stopped";
}

// What stands in the page's head while it is recorded; nothing for a recording that is a file.
export function LiveBar() {
  useChange();
  if (!status) return null;
  const now = status, running = !now.finished && !gone;
  return (
    <span class="live" id="live" data-version={shown} data-samples={now.samples} data-held={held ? "1" : "0"} data-sampling={running && now.sampling ? "1" : "0"}>
      <output class={running && now.sampling ? "on" : ""}>{words(now)}, {Math.floor(now.recorded_s)} s</output>
      {running ? <button type="button" id="sampling" onClick={() => void say(now.sampling ? "stop" : "start")}>{now.sampling ? "Stop sampling" : "Start sampling"}</button> : null}
      {running ? <label><input type="checkbox" id="hold" checked={held} onChange={(event) => hold(event.currentTarget.checked)} /> hold the picture</label> : null}
    </span>
  );
}

export const isLive = () => status !== null;
