// Puts the built speedscope (npm package, MIT) beside the page: what it needs to show a profile, with its licences.
import { cpSync, mkdirSync, readdirSync, readFileSync } from "node:fs";

const from = "node_modules/speedscope", release = `${from}/dist/release`, to = "../src/unspool/web/static/speedscope";
// An example profile, the reader of Java's recordings, and the format's schema.
const leftOut = /\.(txt|wasm|json|map)$/;

mkdirSync(to, { recursive: true });
for (const name of readdirSync(release)) if (!leftOut.test(name)) cpSync(`${release}/${name}`, `${to}/${name}`);
cpSync(`${from}/LICENSE`, `${to}/LICENSE.md`);
if (!readFileSync(`${to}/index.html`, "utf8").includes("<script src=")) throw new Error("speedscope is not built as it was: look at its index.html");
