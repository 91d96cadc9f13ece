// A table of any length: only the rows on the screen are in the document.
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

export interface Column { id: string; title: string; number?: boolean; long?: boolean; wide?: boolean; cell: (row: number) => ComponentChildren; value: (row: number) => number | string }

const HEIGHT = 24, SPARE = 10;

const classOf = (one: Column) => (one.number ? (one.long ? "number long" : "number") : one.wide ? "name" : "");

export interface TableProperties {
  id: string; rows: number[]; columns: Column[]; sort: string; label: string;
  onSort: (sort: string) => void; onPick?: (row: number) => void; share?: (row: number) => number;
}

export function Table({ id, rows, columns, sort, label, onSort, onPick, share }: TableProperties) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ top: 0, height: 600 });
  const [cursor, setCursor] = useState(-1);
  const look = () => { const at = box.current; if (at) setSeen({ top: at.scrollTop, height: at.clientHeight }); };
  useEffect(() => {
    const resized = new ResizeObserver(look);
    resized.observe(box.current!);
    return () => resized.disconnect();
  }, []);
  const [by, reverse] = sort.startsWith("-") ? [sort.slice(1), true] : [sort, false];
  const column = columns.find((one) => one.id === by) ?? columns[0]!;
  // Numbers begin with the largest, names with A; the minus turns it around.
  const ordered = useMemo(() => [...rows].sort((one, two) => {
    const first = column.value(one), second = column.value(two);
    const order = column.number ? (second as number) - (first as number) : String(first).localeCompare(String(second));
    return (reverse ? -order : order) || one - two;
  }), [rows, sort]);
  const start = Math.max(0, Math.floor(seen.top / HEIGHT) - SPARE);
  const shown = ordered.slice(start, start + Math.ceil(seen.height / HEIGHT) + 2 * SPARE);
  // The keys of a list: the row is chosen by its place, and Enter does what a click does.
  const key = (event: KeyboardEvent) => {
    if (!onPick || event.ctrlKey || event.metaKey || event.altKey || event.target !== box.current) return;
    const page = Math.max(1, Math.floor(seen.height / HEIGHT) - 2);
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -ordered.length, End: ordered.length };
    if (event.key === "Enter" && ordered[cursor] !== undefined) onPick(ordered[cursor]!);
    const step = steps[event.key];
    if (step === undefined || !ordered.length) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(ordered.length - 1, cursor + step)), at = box.current!;
    setCursor(next);
    // The head of the table covers one row.
    if (next * HEIGHT < at.scrollTop) at.scrollTop = next * HEIGHT;
    if ((next + 2) * HEIGHT > at.scrollTop + at.clientHeight) at.scrollTop = (next + 2) * HEIGHT - at.clientHeight;
  };
  const order = (one: Column) => (one.id === by ? (!!one.number === reverse ? "ascending" : "descending") : "none");
  return (
    <div class="table" id={id} ref={box} onScroll={look} onKeyDown={key} tabIndex={0}>
      <table aria-label={label} aria-rowcount={rows.length}>
        <thead>
          <tr>{columns.map((one) => (
            <th key={one.id} class={classOf(one)} aria-sort={order(one)}>
              <button type="button" onClick={() => onSort(one.id === by && !reverse ? `-${one.id}` : one.id)}>{one.title}{one.id === by ? (reverse ? " \u25b4" : " \u25be") : ""}</button>
            </th>))}
          </tr>
        </thead>
        <tbody>
          {start > 0 && <tr class="space" style={{ height: `${start * HEIGHT}px` }} aria-hidden="true" />}
          {shown.map((row, place) => (
            <tr key={row} class={onPick ? (start + place === cursor ? "pick cursor" : "pick") : ""} aria-selected={onPick ? start + place === cursor : undefined} onClick={() => onPick?.(row)}>
              {columns.map((one, place) => (
                <td key={one.id} class={classOf(one)}>
                  {place === 0 && share ? <i class="bar" style={{ width: `${Math.min(100, 100 * share(row))}%` }} /> : null}
                  <span>{one.cell(row)}</span>
                </td>))}
            </tr>))}
          {start + shown.length < ordered.length && <tr class="space" style={{ height: `${(ordered.length - start - shown.length) * HEIGHT}px` }} aria-hidden="true" />}
        </tbody>
      </table>
    </div>
  );
}
