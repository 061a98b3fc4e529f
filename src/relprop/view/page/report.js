// Pointing at a map, or moving over it with the arrow keys, reads its values. Without scripts the picture is the view.
customElements.define("relprop-map", class extends HTMLElement {
  connectedCallback() {
    const [h, w] = this.dataset.shape.split(",").map(Number), unit = Number(this.dataset.unit);
    const bytes = Uint8Array.from(atob(this.dataset.values), c => c.charCodeAt(0)), values = new DataView(bytes.buffer);
    const out = this.querySelector("output");
    let x = w >> 1, y = h >> 1;
    const show = () => {
      const value = values.getInt16(2 * (y * w + x), true) * unit;
      out.textContent = `column ${x}, row ${y}: ${value.toPrecision(4)}`;
    };
    out.textContent = "point at a picture, or use the arrow keys, to read values";
    for (const img of this.querySelectorAll("img")) {
      img.tabIndex = 0;
      img.addEventListener("pointermove", e => {
        const box = img.getBoundingClientRect();
        x = Math.max(0, Math.min(w - 1, Math.floor((e.clientX - box.left) / box.width * w)));
        y = Math.max(0, Math.min(h - 1, Math.floor((e.clientY - box.top) / box.height * h)));
        show();
      });
      img.addEventListener("keydown", e => {
        const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
        if (!step) return;
        e.preventDefault();
        x = Math.max(0, Math.min(w - 1, x + step[0]));
        y = Math.max(0, Math.min(h - 1, y + step[1]));
        show();
      });
    }
  }
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));
