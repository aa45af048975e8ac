// A picture of one's own: chosen or dropped here, opened by the kernel, which decodes and cuts it like all others.

const PIECE = 2 << 20; // bytes a message: Jupyter's server closes a connection that sends 10 MB at once
const NO_KERNEL = "A picture of your own needs a running kernel: run the notebook's cell and drop it there.";

/** Send files to the kernel, one after the other. `tell(line)`: what is going on, and at the end what went wrong. */
function senderOf(model, kernel, tell) {
  let sent = 0;
  async function send(file) {
    const most = model.get("panel").file_mb;
    if (file.size > most * 1e6) return `${file.name}: got a file of ${Math.ceil(file.size / 1e6)} MB, expected at most ${most}`;
    const parts = Math.max(1, Math.ceil(file.size / PIECE)), key = `${performance.now()} ${++sent}`;
    for (let part = 0; part < parts; part++) {
      let piece;
      tell(`Opening ${file.name} ...`);
      try { piece = await file.slice(part * PIECE, (part + 1) * PIECE).arrayBuffer(); } catch { return `${file.name}: cannot be read`; }
      const error = await kernel.ask({ kind: "file", name: file.name, key, part, parts }, [piece]);
      if (error) return error;
    }
    return "";
  }
  return async (files) => {
    const wrong = [];
    for (const file of files) {
      const error = await send(file);
      if (error) wrong.push(error);
    }
    if (files.length) tell(wrong.join("; "));
  };
}

/** Files dropped anywhere on `root` go to `run`; without this the page would be left for the file. */
function dropZone(root, run) {
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const over = (event) => {
    if (!files(event)) return;
    event.preventDefault(); event.stopPropagation(); root.classList.add("lcmae-dropping");
  };
  root.addEventListener("dragenter", over);
  root.addEventListener("dragover", over);
  root.addEventListener("dragleave", (event) => { if (!root.contains(event.relatedTarget)) root.classList.remove("lcmae-dropping"); });
  root.addEventListener("drop", (event) => {
    root.classList.remove("lcmae-dropping");
    if (!files(event)) return;
    event.preventDefault(); event.stopPropagation(); run([...event.dataTransfer.files]);
  });
}

/** A button that opens the file dialog: what can be dropped can be chosen by keyboard. */
function fileButton(into, run) {
  const chosen = node("input", "lcmae-file", into, { type: "file", accept: "image/*", multiple: "", hidden: "" });
  const button = node("button", "lcmae-add", into, { type: "button",
    title: "Look at a picture of your own: choose it here, or drop it anywhere on the browser" });
  button.textContent = "Add a picture ...";
  button.addEventListener("click", () => chosen.click());
  chosen.addEventListener("change", () => { const files = [...chosen.files]; chosen.value = ""; run(files); });
}
