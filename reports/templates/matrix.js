// In an opened trial: original and reconstruction under a slider.
(() => {
  for (const panel of document.querySelectorAll(".trial")) {
    panel.addEventListener("beforetoggle", (event) => {
      const place = panel.querySelector(".slider");
      const cell = document.querySelector(`button.cell[popovertarget="${panel.id}"]`);
      const original = cell.closest("tr").querySelector("img.original");
      const rebuilt = cell.querySelector("img");
      if (event.newState !== "open" || !original || !rebuilt || place.childElementCount) return;
      const images = [original, rebuilt].map((source, k) => {
        const image = new Image(192, 192);
        image.src = source.src;
        image.alt = k ? "Reconstruction" : original.alt;
        return image;
      });
      const range = document.createElement("input");
      range.type = "range";
      range.value = "50";
      range.setAttribute("aria-label", "Share of the picture that shows the reconstruction");
      const move = () => { images[1].style.clipPath = `inset(0 ${100 - range.value}% 0 0)`; };
      range.addEventListener("input", move);
      move();
      const frame = document.createElement("div");
      frame.className = "frame";
      frame.append(...images);
      place.append(frame, range);
      place.hidden = false;
    });
  }
})();
