// The keys, as a page over the page.
import { useEffect, useRef } from "preact/hooks";

const KEYS: [string, string][] = [
  ["/ or Ctrl-F", "search; Enter goes to the next match, Esc ends it"],
  ["1 2 3 4 5 6", "flame graph, table, sandwich, data quality, flame chart, difference"],
  ["W S, + -", "zoom in and out"],
  ["A D, drag", "move left and right"],
  ["arrows", "go from box to box, in a table from row to row"],
  ["Enter, click", "zoom to a box; in a table open the function"],
  ["double click", "callers and callees of a function"],
  ["Esc, 0", "the whole picture"],
  ["Ctrl + wheel", "zoom at the mouse"],
  ["I", "flames upwards or downwards"],
  ["V", "begin with what ran, or with what called it"],
  ["T", "dark or light"],
  ["?", "these keys"],
];

export function Help({ onClose }: { onClose: () => void }) {
  const close = useRef<HTMLButtonElement>(null);
  useEffect(() => close.current?.focus(), []);
  return (
    <div class="veil" onClick={onClose}>
      <div class="help" role="dialog" aria-modal="true" aria-label="Keys" onClick={(event) => event.stopPropagation()}>
        <h2>Keys</h2>
        <table class="plain"><tbody>{KEYS.map(([key, says]) => <tr key={key}><th>{key}</th><td>{says}</td></tr>)}</tbody></table>
        <button type="button" ref={close} onClick={onClose}>Close</button>
      </div>
    </div>
  );
}
