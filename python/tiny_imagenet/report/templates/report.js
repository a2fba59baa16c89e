// The filter of the wrong images. Without it all are shown; #class=3&said=5&run=0 in the address chooses on load.
(() => {
  const form = document.getElementById("filter");
  const names = ["class", "said", "run"];
  const chosen = Object.fromEntries(names.map((name) => [name, document.getElementById("filter-" + name)]));
  const count = document.getElementById("filter-count");
  const groups = [...document.querySelectorAll("[data-run]")];

  const fits = (name, value) => chosen[name].value === "" || chosen[name].value === value;

  function show() {
    const byClass = chosen.class.value !== "" || chosen.said.value !== "";
    let shown = 0;
    for (const group of groups) {
      let here = 0;
      for (const tile of group.querySelectorAll("[data-class]")) {
        tile.hidden = !fits("class", tile.dataset.class) || !fits("said", tile.dataset.said);
        here += tile.hidden ? 0 : 1;
      }
      group.hidden = !fits("run", group.dataset.run) || (byClass && here === 0);
      if (!group.hidden && (byClass || chosen.run.value !== "")) group.open = true;
      shown += group.hidden ? 0 : here;
    }
    count.textContent = shown === 1 ? "1 error" : shown + " errors";
  }

  function read() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!names.some((name) => wanted.has(name))) return;
    for (const name of names) {
      const value = wanted.get(name) ?? "";
      chosen[name].value = [...chosen[name].options].some((option) => option.value === value) ? value : "";
    }
    document.getElementById("errors").scrollIntoView();
  }

  function keep() {
    const wanted = new URLSearchParams();
    for (const name of names) if (chosen[name].value !== "") wanted.set(name, chosen[name].value);
    history.replaceState(null, "", "#" + (wanted.toString() || "errors"));
    show();
  }

  form.hidden = false;
  form.addEventListener("change", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { read(); show(); });
  read();
  show();
})();
