// Bundles src/ into ../bundle: viewer.js, viewer.css, THIRD_PARTY.txt (the licences of every package
// whose code is in the bundle) and sources.json (SHA-256 of what it was made of).
// `--check` builds in memory and fails if that is not what ../bundle holds.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const bundle = join(here, "..", "bundle");
const packages = join(here, "node_modules");

const made = await build({
  absWorkingDir: here,
  entryPoints: { viewer: "src/main.tsx" },
  outdir: "out",
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  legalComments: "none",
  charset: "ascii",
  format: "iife",
  target: ["es2022"],
  logLevel: "warning",
});

const files = Object.fromEntries(
  made.outputFiles.map((file) => [file.path.split(/[\\/]/).pop(), file.text]),
);
files["THIRD_PARTY.txt"] = licences(Object.keys(made.metafile.inputs));
files["sources.json"] = JSON.stringify(hashes(), null, 1) + "\n";

if (process.argv.includes("--check")) {
  const stale = Object.keys(files).filter((name) => read(join(bundle, name)) !== files[name]);
  if (stale.length) {
    console.error(`not what the source builds: ${stale.join(", ")}; run npm run build`);
    process.exit(1);
  }
} else {
  mkdirSync(bundle, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(bundle, name), text);
}

function read(path) {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** Name, version and licence text of every npm package whose code is in the bundle. */
function licences(inputs) {
  const found = inputs.map((path) => path.match(/^.*node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
  const parts = [...withDependencies(found.filter(Boolean))].sort().map((name) => {
    const about = JSON.parse(read(join(packages, name, "package.json")));
    const file = readdirSync(join(packages, name)).find((one) => /^licen[cs]e/i.test(one));
    if (!file) throw new Error(`${name} has no licence file`);
    const text = read(join(packages, name, file)).replace(/\r\n/g, "\n").trim();
    return `${name} ${about.version} (${about.license})\n\n${text}\n`;
  });
  return `The page contains code of these packages.\n\n${parts.join("\n" + "-".repeat(80) + "\n\n")}`;
}

/** The packages and what they need: some come with their dependencies' code inside. */
function withDependencies(names, all = new Set()) {
  for (const name of names.filter((one) => !all.has(one))) {
    all.add(name);
    const about = JSON.parse(read(join(packages, name, "package.json")));
    withDependencies(Object.keys(about.dependencies ?? {}), all);
  }
  return all;
}

/** SHA-256 of every file that the bundle depends on, by its name in this folder. */
function hashes() {
  const names = [
    "build.mjs", "package.json", "package-lock.json", "tsconfig.json",
    ...readdirSync(join(here, "src")).map((name) => `src/${name}`),
  ].sort();
  const hash = (name) => createHash("sha256").update(readFileSync(join(here, name))).digest("hex");
  return Object.fromEntries(names.map((name) => [name, hash(name)]));
}
