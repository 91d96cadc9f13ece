// Dark or light: the system's choice until the user makes one, which this browser keeps.
const listeners = new Set<() => void>();
const root = document.documentElement;

export const isDark = () => root.classList.contains("dark");
export function onTheme(tell: () => void): () => void { listeners.add(tell); return () => listeners.delete(tell); }
export function toggleTheme(): void {
  root.classList.toggle("dark");
  try { localStorage.setItem("theme", isDark() ? "dark" : "light"); } catch { /* not kept, then */ }
  for (const tell of listeners) tell();
}

// Another number of device pixels for one of the page's: a window that moved to another screen keeps its size, and no observer of sizes speaks.
export function onRatio(tell: () => void): () => void {
  let query: MediaQueryList;
  const changed = () => { watch(); tell(); };
  const watch = () => {
    query = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
    query.addEventListener("change", changed, { once: true });
  };
  watch();
  return () => query.removeEventListener("change", changed);
}

let kept: string | null = null;
try { kept = localStorage.getItem("theme"); } catch { /* none is kept */ }
if (kept ? kept === "dark" : matchMedia("(prefers-color-scheme: dark)").matches) root.classList.add("dark");
