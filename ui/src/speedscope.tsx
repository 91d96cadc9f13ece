// The chosen samples in speedscope, which is served beside the page: a second opinion, by a program that others know.
import type { State } from "./state";

export function Speedscope({ state, by, marks, title }: { state: State; by: string; marks: string; title: string }) {
  const profile = `/api/export?${new URLSearchParams([["format", "speedscope"], ["file", state.file], ["by", by], ["marks", marks], ...state.filter()])}`;
  const address = `/speedscope/index.html#profileURL=${encodeURIComponent(profile)}&title=${encodeURIComponent(title)}`;
  return <a id="speedscope" class="button" href={address} target="_blank" rel="noopener">Open in speedscope</a>;
}
