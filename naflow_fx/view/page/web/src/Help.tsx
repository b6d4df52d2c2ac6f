/** The keys. */
import { useEffect, useRef } from "preact/hooks";
import { help } from "./state";

const KEYS = [
  ["Space", "play, pause"],
  ["← →", "layer before, layer after"],
  ["Shift + ← →", "block before, block after"],
  ["Home End", "first, last layer"],
  ["[ ]", "less, more opacity"],
  ["C", "next colour map"],
  ["S", "one scale for all layers, or one a map"],
  ["N", "next photo or model"],
  ["I", "the layer's inverse in the graph"],
  ["Esc", "take the box away"],
  ["?", "this list"],
];

const shut = () => (help.value = false);

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (help.value) dialog.current!.showModal();
    else dialog.current!.close();
  }, [help.value]);
  return (
    <dialog ref={dialog} aria-label="Keys" onClose={shut}>
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([keys, what]) => (
          <div key={keys}>
            <dt>
              <kbd>{keys}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p>Drag on a photo to draw a box; click on it to take the box away.</p>
      <details>
        <summary>Licences of the code in this page</summary>
        <pre>{document.getElementById("licences")!.textContent}</pre>
      </details>
      <button autofocus onClick={shut}>Close</button>
    </dialog>
  );
}
