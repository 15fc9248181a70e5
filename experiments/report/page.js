// Filters and sorting of the page's tables. Without it everything is shown in the paper's order.
(() => {
  "use strict";
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const form = document.getElementById("filter");

  function filter() {
    const paper = form.elements.paper.value;
    const shown = new Set(all("input:checked", form).map((box) => box.value));
    for (const section of all(".of-paper")) section.hidden = paper !== "" && section.id !== paper;
    for (const row of all("tr[data-status]")) row.hidden = !shown.has(row.dataset.status);
    for (const body of all(".comparison tbody")) {
      body.hidden = all("tr[data-status]", body).every((row) => row.hidden);
    }
    for (const table of all(".comparison")) {
      const empty = all("tbody", table).every((body) => body.hidden);
      table.closest(".scroll").hidden = empty;
    }
    const rows = all(".of-paper:not([hidden]) tr[data-status]:not([hidden])").length;
    form.elements.count.value = `${rows} of ${all("tr[data-status]").length} numbers`;
  }

  // The value of a block of rows in a column: its first number, or its first text.
  function value(body, column) {
    const texts = all("tr[data-status]:not([hidden])", body)
      .map((row) => row.cells[column]?.textContent.trim() ?? "")
      .filter((text) => text !== "");
    const numbers = texts.map((text) => parseFloat(text.replace("−", "-").replace(/,/g, "")));
    const number = numbers.find((n) => !Number.isNaN(n));
    return number ?? (texts[0] || null);
  }

  function sort(table, column, direction) {
    const bodies = all("tbody", table);
    bodies.forEach((body, place) => (body.dataset.place ??= place));
    const key = new Map(bodies.map((body) => [body, value(body, column)]));
    const order = (a, b) => {
      const [x, y] = [key.get(a), key.get(b)];
      if (direction === "none" || x === y) return a.dataset.place - b.dataset.place;
      if (x === null || y === null) return x === null ? 1 : -1;
      const less = typeof x === typeof y ? x < y : typeof x === "number";
      return (less ? -1 : 1) * (direction === "ascending" ? 1 : -1);
    };
    table.append(...bodies.sort(order));
  }

  for (const table of all(".comparison")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" }[head.ariaSort] ?? "ascending";
        heads.forEach((other) => (other.ariaSort = "none"));
        head.ariaSort = next;
        sort(table, column, next);
      });
    });
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
