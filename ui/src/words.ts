// Numbers as people read them.
export const count = (value: number) => Math.round(value).toLocaleString("en-US");
export const percent = (part: number, whole: number, digits = 2) => (whole ? `${((100 * part) / whole).toFixed(digits)} %` : "-");
export const points = (share: number) => `${share >= 0 ? "+" : "\u2212"}${Math.abs(100 * share).toFixed(2)}`;
export const file = (path: string) => path.replace(/\/+$/, "").split("/").pop() || path;

// What the browser's user typed: text, or /a regular expression/; null for nothing, undefined for one that is wrong.
export function matcher(text: string): ((name: string) => boolean) | null | undefined {
  if (!text) return null;
  if (text.length > 2 && text.startsWith("/") && text.endsWith("/")) {
    try { const expression = new RegExp(text.slice(1, -1), "i"); return (name) => expression.test(name); } catch { return undefined; }
  }
  const wanted = text.toLowerCase();
  return (name) => name.toLowerCase().includes(wanted);
}

// A value of a recording as a pattern that fits only itself.
export const exactly = (text: string) => text.replace(/[*?[]/g, (letter) => `[${letter}]`);
export const unpattern = (text: string) => text.replace(/\[([*?[])\]/g, "$1");
