// Makes the headings of tables sort the rows that are shown; without scripts the tables are read as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const text = (row) => row.cells[place].textContent;
      const numeric = head.classList.contains("n");
      const rows = [...body.rows].sort((a, b) => {
        const [one, two] = [text(a), text(b)];
        if (!one || !two) return !one - !two; // what is missing stays last
        const order = numeric ? one - two : one.localeCompare(two, "en", { numeric: true });
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
