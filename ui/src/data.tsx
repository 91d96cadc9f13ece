// What a component shows of the server: the last answer stays on the screen until the next one is there.
import { useEffect, useState } from "preact/hooks";
import { type Parameters, Unreachable, ask } from "./api";
import { isLive, useVersion } from "./live";
import type { State } from "./state";

export interface Loaded<T> { data: T | null; error: string; loading: boolean }

export function useData<T>(view: string, parameters: Parameters): Loaded<T> {
  const [loaded, set] = useState<Loaded<T>>({ data: null, error: "", loading: true });
  const version = useVersion();
  const key = `${view}?${new URLSearchParams(parameters)}`;
  useEffect(() => {
    const stop = new AbortController();
    set((before) => (before.loading ? before : { ...before, loading: true }));
    ask<T>(view, parameters, stop.signal).then(
      (data) => set({ data, error: "", loading: false }),
      // Without a server the last answer stays; a bar over the page says so.
      (error: Error) => { if (!stop.signal.aborted) set((before) => ({ data: error instanceof Unreachable ? before.data : null, error: error.message, loading: false })); },
    );
    return () => stop.abort();
  }, [key, version]);
  return loaded;
}

export function Wait({ of }: { of: Loaded<unknown> }) {
  if (of.error) return <p class="error" role="alert">{of.error}</p>;
  return of.loading && !of.data ? <p class="wait" role="status">Counting samples…</p> : null;
}

// Why there is no picture.
export function Nothing({ state }: { state: State }) {
  const why = state.hasFilter ? "No sample passes the filters." : isLive() ? "No sample yet." : "The recording holds no sample: nothing of what was asked for ran.";
  return <p class="wait" role="status">{why}</p>;
}
