"use strict";
(() => {
  const form = document.getElementById("filters");
  const gallery = document.getElementById("gallery");
  if (!form || !gallery) return;
  const exhibits = Array.from(gallery.children);
  const count = document.getElementById("filter-count");
  const apply = () => {
    const wanted = Array.from(form.elements).filter((e) => e.name && e.value);
    let shown = 0;
    for (const exhibit of exhibits) {
      const fits = wanted.every((e) => exhibit.dataset[e.name] === e.value);
      exhibit.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = `${shown} of ${exhibits.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
})();
