/** The page. */
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import { Curves } from "./Curves";
import { About, Detail } from "./Detail";
import { report } from "./data";
import { Graph } from "./Graph";
import { Help } from "./Help";
import { listen } from "./keys";
import { Layers } from "./Layers";
import { Stage } from "./Stage";
import { help, several, theme } from "./state";
import "./style.css";
import { Look, Transport } from "./Transport";

const after = { auto: "light", light: "dark", dark: "auto" } as const;

function Page() {
  return (
    <>
      <header class="top-bar">
        <h1>{report.title}</h1>
        <div class="top-tools">
          <button
            aria-label={`Theme: ${theme.value}; change it`}
            onClick={() => (theme.value = after[theme.value])}
          >
            ◐ {theme.value}
          </button>
          <button aria-label="Help: keys" onClick={() => (help.value = true)}>
            ?
          </button>
        </div>
      </header>
      <main class={several ? "page many" : "page one"}>
        {report.entries.length > 0 && <Flow />}
        <Graph />
      </main>
      <footer>{report.made_by}</footer>
      <Help />
    </>
  );
}

function Flow() {
  return (
    <>
      <div class="upper">
        <Layers />
        <div class="middle">
          <Stage />
          <Transport />
          <Look />
        </div>
        <div class="side">
          <Detail />
          <About />
        </div>
      </div>
      <Curves />
    </>
  );
}

if (report.entries.length) listen();
render(<Page />, document.getElementById("page")!);
document.documentElement.dataset.ready = "";
