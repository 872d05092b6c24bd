// Sorting and filtering of the league table; its state stands in the address, after "#".
(() => {
  const table = document.getElementById("league");
  const form = document.getElementById("league-filters");
  if (!table || !form) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const count = document.getElementById("league-count");
  const empty = document.getElementById("league-empty");
  const MARK = "league?";
  let sorting = { column: 1, down: true };

  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[sorting.column].dataset.value);
    if (!x !== !y) return x ? -1 : 1; // what was not measured is last, whichever way
    const order = heads[sorting.column].dataset.sort === "number" ? x - y : x.localeCompare(y);
    return sorting.down ? -order : order;
  };
  const show = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const words = (wanted.words || "").toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const fits = words.every((word) => row.textContent.toLowerCase().includes(word))
        && ["scenario", "verdict"].every((key) => !wanted[key] || row.dataset[key] === wanted[key]);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    body.append(...[...rows].sort(compare));
    heads.forEach((head, k) => {
      if (k === sorting.column) head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    count.textContent = `${shown} of ${rows.length} shown`;
    empty.hidden = shown > 0;
  };
  const remember = () => {
    const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    if (sorting.column !== 1 || !sorting.down) state.set("sort", `${sorting.column}${sorting.down ? "d" : "u"}`);
    history.replaceState(null, "", `#${state.size ? MARK + state : "defenses"}`);
  };
  const recall = () => {
    const place = location.hash.slice(1);
    if (!place.startsWith(MARK)) return;
    const state = new URLSearchParams(place.slice(MARK.length));
    for (const field of form.elements) if (field.name) field.value = state.get(field.name) || "";
    const sort = /^(\d)([du])$/.exec(state.get("sort") || "");
    if (sort && heads[sort[1]]) sorting = { column: Number(sort[1]), down: sort[2] === "d" };
    table.scrollIntoView();
  };
  const update = () => { show(); remember(); };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const text = head.dataset.sort === "text";
      sorting = { column, down: sorting.column === column ? !sorting.down : !text };
      update();
    });
  });
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sorting = { column: 1, down: true }; update(); }));
  document.getElementById("league-reset").addEventListener("click", () => form.reset());
  recall();
  show();
})();
