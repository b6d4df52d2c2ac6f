/** All layers of the entry in their blocks, each with its map in small. */
import { useEffect, useRef } from "preact/hooks";
import { type Layer, numbers } from "./data";
import { paint, table } from "./paint";
import { colormap, entry, go, step } from "./state";
import { short } from "./words";

const SMALL = 32; // pixels of a thumbnail

export function Layers() {
  const list = useRef<HTMLElement>(null);
  useEffect(() => {
    const at = list.current?.querySelector<HTMLElement>("[aria-current=true]");
    if (at) scrollInside(list.current!, at);
  }, [step.value, entry.value]);
  return (
    <nav class="layers" aria-label="Layers in their blocks" ref={list}>
      {blocks(entry.value.layers).map((block) => (
        <div key={block.start} role="group" aria-label={block.name || "outside of blocks"}>
          {block.name && <h2>{block.name}</h2>}
          <ul>
            {block.layers.map((one, i) => (
              <Row key={one.name} one={one} index={block.start + i} />
            ))}
          </ul>
        </div>
      ))}
    </nav>
  );
}

/** Scrolls the list, never the page. */
function scrollInside(list: HTMLElement, at: HTMLElement): void {
  const top = at.offsetTop - list.offsetTop;
  if (top < list.scrollTop + 40 || top > list.scrollTop + list.clientHeight - 80) {
    list.scrollTop = top - list.clientHeight / 2;
  }
}

function Row({ one, index }: { one: Layer; index: number }) {
  return (
    <li>
      <button class="layer" aria-current={index === step.value} onClick={() => go(index)}>
        <Thumbnail one={one} />
        <span class="layer-name">{short(one.name)}</span>
        <span class="layer-size">{one.shape[0]}</span>
      </button>
    </li>
  );
}

function Thumbnail({ one }: { one: Layer }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const colours = colormap.value;
  useEffect(() => {
    paint(canvas.current!, numbers(one), one.shape, [SMALL, SMALL], 1, table(colours));
  }, [one, colours]);
  return <canvas ref={canvas} class="thumbnail" aria-hidden="true" />;
}

interface Block {
  name: string;
  start: number;
  layers: Layer[];
}

/** Runs of layers of one block. */
function blocks(layers: Layer[]): Block[] {
  const found: Block[] = [];
  layers.forEach((one, start) => {
    const last = found.at(-1);
    if (last?.name === one.block) last.layers.push(one);
    else found.push({ name: one.block, start, layers: [one] });
  });
  return found;
}
