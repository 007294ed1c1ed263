"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // ---- theme, print
  const tools = document.querySelector(".tools");
  tools.hidden = false;
  const toggle = document.querySelector("[data-theme-toggle]");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const nameTheme = () => { toggle.textContent = isDark() ? "Light" : "Dark"; };
  toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  nameTheme();
  document.querySelector("[data-print]").addEventListener("click", () => print());
  addEventListener("beforeprint", () => all("main details").forEach(item => { item.dataset.was = item.open; item.open = true; }));
  addEventListener("afterprint", () => all("main details").forEach(item => { item.open = item.dataset.was === "true"; }));
  if (matchMedia("(max-width:900px)").matches) document.querySelector(".contents details").open = false;

  // ---- where the reader is
  const links = new Map(all(".contents a").map(link => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(entries => entries.forEach(entry => {
    if (!entry.isIntersecting) return;
    links.forEach(link => link.classList.remove("here"));
    links.get(entry.target.id)?.classList.add("here");
  }), { rootMargin: "-10% 0px -80% 0px" });
  all("main > section").forEach(section => seen.observe(section));

  // ---- one label at a time, the same one in every section
  const showLabel = name => all("[data-panels]").forEach(group => {
    const panels = all(":scope > .panel", group);
    if (!panels.some(panel => panel.dataset.name === name)) return;
    panels.forEach(panel => { panel.hidden = panel.dataset.name !== name; });
    all(":scope > .tabs button", group).forEach(tab => {
      const on = tab.textContent === name;
      tab.setAttribute("aria-selected", on);
      tab.tabIndex = on ? 0 : -1;
    });
  });
  all("[data-panels]").forEach(group => {
    const names = all(":scope > .panel", group).map(panel => panel.dataset.name);
    const bar = document.createElement("div");
    bar.className = "tabs";
    bar.setAttribute("role", "tablist");
    names.forEach(name => {
      const tab = document.createElement("button");
      tab.type = "button";
      tab.textContent = name;
      tab.setAttribute("role", "tab");
      tab.addEventListener("click", () => showLabel(name));
      bar.append(tab);
    });
    bar.addEventListener("keydown", event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const tabs = all("button", bar);
      const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
      next.click();
      next.focus();
    });
    group.prepend(bar);
    group.classList.add("tabbed");
  });
  const first = document.querySelector("[data-panels] > .panel");
  if (first) showLabel(first.dataset.name);

  // ---- hovering a chart
  const tip = document.getElementById("tip");
  const svgNS = "http://www.w3.org/2000/svg";
  const make = (name, attributes) => {
    const node = document.createElementNS(svgNS, name);
    Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
    return node;
  };
  const shown = value => Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(3).replace("-", "\u2212");
  const scale = (pixel, start, size, [low, high, log]) => {
    const share = (pixel - start) / size;
    return log ? Math.exp(Math.log(low) + share * (Math.log(high) - Math.log(low))) : low + share * (high - low);
  };
  const readChart = svg => {
    const [left, top, width, height] = svg.dataset.box.split(" ").map(Number);
    const x = svg.dataset.x.split(" ").map(Number), y = svg.dataset.y.split(" ").map(Number);
    const series = all("polyline[data-name]", svg).map(line => ({
      name: line.dataset.name,
      t: line.dataset.t ? line.dataset.t.split(" ") : null,
      points: line.getAttribute("points").split(" ").filter(Boolean).map(point => point.split(",").map(Number)),
    }));
    return { left, top, width, height, x, y, series, xname: svg.dataset.xname, yname: svg.dataset.yname };
  };
  const place = (event, text) => {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = Math.min(event.clientX + 14, innerWidth - width - 8) + "px";
    tip.style.top = Math.max(event.clientY - height - 12, 8) + "px";
  };
  all("svg[data-box]").forEach(svg => {
    let chart = null, guide = null;
    const clear = () => { tip.hidden = true; guide?.remove(); guide = null; };
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("pointermove", event => {
      const dot = event.target.closest("[data-text]");
      if (dot) { clear(); place(event, dot.dataset.text); return; }
      chart ??= readChart(svg);
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const inside = at.x >= chart.left - 2 && at.x <= chart.left + chart.width + 2 && at.y >= chart.top - 2 && at.y <= chart.top + chart.height + 2;
      if (!inside || !chart.series.length) { clear(); return; }
      clear();
      guide = make("g", {});
      const lines = [];
      chart.series.forEach(series => {
        let best = 0, gap = Infinity;
        series.points.forEach(([px, py], k) => {
          const far = (px - at.x) ** 2 + (series.t ? (py - at.y) ** 2 : 0);
          if (far < gap) { gap = far; best = k; }
        });
        const [px, py] = series.points[best] ?? [];
        if (px === undefined || (!series.t && Math.abs(px - at.x) > 12 && series.points.length > 2)) return;
        const value = shown(scale(py, chart.top + chart.height, -chart.height, chart.y));
        const where = shown(scale(px, chart.left, chart.width, chart.x));
        if (series.t) lines.push(`${series.name}\n${chart.yname} ${value}\n${chart.xname} ${where}\nthreshold ${series.t[best]}`);
        else { if (!lines.length) lines.push(`${chart.xname} ${where}`); lines.push(`${series.name} ${value}`); }
        guide.append(make("circle", { class: "cursor-dot", cx: px, cy: py, r: 3.5 }));
      });
      if (!lines.length) { guide = null; return; }
      guide.prepend(make("line", { class: "cursor", x1: at.x, x2: at.x, y1: chart.top, y2: chart.top + chart.height }));
      svg.append(guide);
      place(event, chart.series[0].t && lines.length > 2 ? lines.map(line => line.split("\n").slice(0, 2).join(": ")).join("\n") : lines.join("\n"));
    });
  });

  // ---- the threshold slider
  const percent = value => (100 * value).toFixed(1) + "%";
  const wilson = (k, n) => {
    const z = 1.959963984540054, p = k / n, d = 1 + z * z / n;
    const centre = (p + z * z / (2 * n)) / d, half = z * Math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d;
    return [k === 0 ? 0 : Math.max(0, centre - half), k === n ? 1 : Math.min(1, centre + half)];
  };
  const rate = (k, n) => {
    if (!n) return ["not estimable", ""];
    const [low, high] = wilson(k, n);
    return [percent(k / n), `${k}/${n}, ${percent(low)} to ${percent(high)}`];
  };
  all("[data-slider]").forEach(box => {
    const data = JSON.parse(box.querySelector("script").textContent);
    const range = box.querySelector("input[type=range]"), prevalence = box.querySelector("input[type=text]");
    const output = box.querySelector("output");
    const put = (key, value, small = "") => {
      const cell = box.querySelector(`[data-out=${key}]`);
      cell.textContent = value;
      if (small) { const note = document.createElement("small"); note.textContent = small; cell.append(note); }
    };
    const moveMarks = t => all("svg[data-box] .mark", box).forEach(mark => {
      const svg = mark.ownerSVGElement, chart = readChart(svg);
      const px = chart.left + chart.width * (t - chart.x[0]) / (chart.x[1] - chart.x[0]);
      const line = mark.querySelector("line"), text = mark.querySelector("text");
      line.setAttribute("x1", px); line.setAttribute("x2", px);
      const right = px > chart.left + chart.width * 0.66;
      text.setAttribute("x", px + (right ? -4 : 4));
      text.setAttribute("text-anchor", right ? "end" : "start");
      text.textContent = "threshold " + (+t.toPrecision(3));
    });
    const update = () => {
      const k = +range.value, t = data.t[k], tp = data.tp[k], fp = data.fp[k];
      const fn = data.positive - tp, tn = data.negative - fp, n = data.positive + data.negative;
      output.textContent = +t.toPrecision(4);
      range.setAttribute("aria-valuetext", "threshold " + t);
      put("tp", tp.toLocaleString("en")); put("fp", fp.toLocaleString("en")); put("fn", fn.toLocaleString("en")); put("tn", tn.toLocaleString("en"));
      put("sensitivity", ...rate(tp, tp + fn)); put("specificity", ...rate(tn, tn + fp));
      const stated = parseFloat(prevalence.value.replace(",", ".")) / 100;
      if (stated > 0 && stated < 1) {
        const se = tp / data.positive, sp = tn / data.negative, up = se * stated, down = sp * (1 - stated);
        const words = `at prevalence ${percent(stated)}`;
        const safe = (a, b) => b > 0 ? percent(a / b) : "not estimable";
        put("ppv", safe(up, up + (1 - sp) * (1 - stated)), words);
        put("npv", safe(down, down + (1 - se) * stated), words);
      } else { put("ppv", ...rate(tp, tp + fp)); put("npv", ...rate(tn, tn + fn)); }
      const odds = t / (1 - t), benefit = (a, b) => t < 1 ? ((a - b * odds) / n).toFixed(3).replace("-", "\u2212") : "–";
      put("nb", benefit(tp, fp)); put("all", benefit(data.positive, data.negative));
      moveMarks(t);
    };
    data.chosen.forEach(t => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "chosen: " + (+t.toPrecision(3));
      button.addEventListener("click", () => {
        range.value = data.t.reduce((best, value, k) => Math.abs(value - t) < Math.abs(data.t[best] - t) ? k : best, 0);
        update();
      });
      box.querySelector(".buttons").append(button);
    });
    range.addEventListener("input", update);
    prevalence.addEventListener("input", update);
    update();
  });

  // ---- copying
  all(".editable").forEach(item => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", () => navigator.clipboard.writeText(item.querySelector("p").textContent).then(() => { button.textContent = "Copied"; }, () => {
      getSelection().selectAllChildren(item.querySelector("p"));
      button.textContent = "Selected: press Ctrl-C";
    }));
    item.append(button);
  });
})();
