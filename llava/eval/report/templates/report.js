"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const PAGE = 40;  // rows that are drawn at a time
  const GLIMPSE = 240;  // characters of a text in its one line
  const LEAD = 24;  // characters before the first change that the line shows
  let shown = PAGE;
  let bodies = 0;

  function element(tag, name, text) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  }
  function button(name, text) {
    const node = element("button", name, text);
    node.type = "button";
    return node;
  }

  // What changed, word by word; of scripts that write no blanks, letter by letter.
  const UNSPACED = "\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Thai}\\p{sc=Khmer}\\p{sc=Lao}";
  const WORD = new RegExp("[" + UNSPACED + "]\\s*|[^\\s" + UNSPACED + "]+\\s*|\\s+", "gu");
  const MOST_CELLS = 4e6;  // beyond, texts are not compared
  function split(text) {
    let start = 0;
    return (text.match(WORD) || []).map((word) => {
      const item = {word: word.trimEnd(), start: start, end: start + word.trimEnd().length};
      start += word.length;
      return item;
    }).filter((item) => item.word);
  }
  // Returns [[start, end], …] of what is gone from a, and of what is new in b; null where nearly nothing is left.
  function compare(a, b) {
    let before = split(a), after = split(b), same = 0;
    const least = Math.min(before.length, after.length);
    while (before.length && after.length && before[0].word === after[0].word) { before.shift(); after.shift(); same += 1; }
    while (before.length && after.length && before[before.length - 1].word === after[after.length - 1].word) { before.pop(); after.pop(); same += 1; }
    const wide = after.length + 1;
    if ((before.length + 1) * wide > MOST_CELLS) return null;
    const longest = new Uint16Array((before.length + 1) * wide);
    for (let i = before.length - 1; i >= 0; i -= 1) {
      for (let j = after.length - 1; j >= 0; j -= 1) {
        longest[i * wide + j] = before[i].word === after[j].word
          ? longest[(i + 1) * wide + j + 1] + 1 : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
      }
    }
    if (!least || same + longest[0] < 0.25 * least) return null;
    const gone = [], added = [];
    let i = 0, j = 0;
    while (i < before.length || j < after.length) {
      if (i < before.length && j < after.length && before[i].word === after[j].word) { i += 1; j += 1; }
      else if (j === after.length || (i < before.length && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) { gone.push([before[i].start, before[i].end]); i += 1; }
      else { added.push([after[j].start, after[j].end]); j += 1; }
    }
    return [join(gone, a), join(added, b)];
  }
  function join(ranges, text) {  // neighbours that only a blank parts
    const joined = [];
    for (const range of ranges) {
      const last = joined[joined.length - 1];
      if (last && !text.slice(last[1], range[0]).trim()) last[1] = range[1]; else joined.push([...range]);
    }
    return joined;
  }

  // Writes a text with its harmful passages coloured and its changed words marked.
  function paint(node, text, harm, changed, tag) {
    const ends = new Set([0, text.length]);
    for (const [start, end] of [...harm, ...changed]) { ends.add(Math.min(start, text.length)); ends.add(Math.min(end, text.length)); }
    const cuts = [...ends].sort((a, b) => a - b);
    let h = 0, c = 0;
    for (let place = 0; place + 1 < cuts.length; place += 1) {
      const start = cuts[place];
      while (h < harm.length && harm[h][1] <= start) h += 1;
      while (c < changed.length && changed[c][1] <= start) c += 1;
      let piece = document.createTextNode(text.slice(start, cuts[place + 1]));
      if (h < harm.length && harm[h][0] <= start) {
        const mark = element("mark", "h" + harm[h][2]);
        mark.title = "harm level " + harm[h][2] + " of 4";
        mark.append(piece);
        piece = mark;
      }
      if (c < changed.length && changed[c][0] <= start) {
        const edit = element(tag);
        edit.append(piece);
        piece = edit;
      }
      node.append(piece);
    }
    return node;
  }

  // The one line of a text: from a little before the first change, so that the change is in it.
  function firstChange(a, b) {
    let same = 0;
    while (same < a.length && same < b.length && a[same] === b[same]) same += 1;
    const from = same > 60 ? a.lastIndexOf(" ", same - LEAD) + 1 : 0;
    return from > 0 ? from : 0;
  }
  function line(tag, text, harm, changed, edit, cut) {
    const node = element("span", "line"), words = element("span", "words");
    node.append(element("span", "tag", tag));
    if (text === "") words.textContent = "(empty)";
    else paint(words, (cut ? "…" : "") + text.replace(/\s/g, " "), shift(harm, cut ? 1 : 0), shift(changed, cut ? 1 : 0), edit);
    node.append(words);
    return node;
  }
  const shift = (ranges, by) => ranges.map(([start, end, level]) => [start + by, end + by, level]);
  function glimpse(row) {
    const box = element("span", "veil"), pair = element("span", "pair");
    box.append(line("asked", row.q.slice(0, GLIMPSE), [], []));
    if (row.p === null) pair.append(line(row.a ? "answer, left as it is" : "answer", row.r.slice(0, GLIMPSE), clip(row.x, 0), []));
    else {
      const from = firstChange(row.r, row.p), before = row.r.slice(from, from + GLIMPSE), after = row.p.slice(from, from + GLIMPSE);
      const [gone, added] = compare(before, after) || [[], []];
      pair.append(line("before", before, clip(row.x, from), gone, "del", from > 0), line("after", after, [], added, "ins", from > 0));
    }
    box.append(pair);
    return box;
  }
  const clip = (harm, from) => (harm || []).filter((range) => range[1] > from).map(([start, end, level]) => [Math.max(0, start - from), end - from, level]);

  function block(title, text, name, harm, changed, tag) {
    const box = element("div", name), frame = element("div", "text"), words = element("div", "words");
    box.append(element("h3", "", title));
    if (text === "") words.textContent = "(empty)"; else paint(words, text, harm || [], changed || [], tag);
    frame.append(words);
    box.append(frame);
    return box;
  }
  function picture(source) {
    const frame = button("picture"), image = element("img");
    frame.setAttribute("aria-label", "image of the question, blurred; press to show or hide it");
    frame.setAttribute("aria-pressed", "false");
    frame.addEventListener("click", () => frame.setAttribute("aria-pressed", String(frame.getAttribute("aria-pressed") !== "true")));
    image.src = source;
    image.alt = "";
    frame.append(image);
    return frame;
  }
  function fill(box, row) {
    const top = element("div", "wide"), why = row.w ? " (" + row.w + ")" : "";
    if (row.g !== null) top.append(picture(data.thumbnails[row.g]));
    top.append(block("question", row.q, "grow"));
    box.append(top);
    if (row.p === null) box.append(block((row.a ? "answer, left as it is" : "answer") + why, row.r, "all", row.x));
    else {
      const found = compare(row.r, row.p), [gone, added] = found || [[], []];
      box.append(block("before", row.r, "", row.x, gone, "del"), block("after" + (found ? "" : ", replaced as a whole") + why, row.p, "", [], added, "ins"));
    }
  }

  // One record: a row that opens. Opened by a link its texts stay blurred until they are asked for.
  const verdict = (unsafe) => (unsafe === null ? "unscored" : unsafe ? "unsafe" : "safe");
  function item(row) {
    const box = element("div", "item"), opener = button("row"), head = element("span", "head"), body = element("div", "body");
    body.id = "body-" + (bodies += 1);
    body.hidden = true;
    head.append(element("span", "name", row.s + " / " + row.i), element("span", "chip", row.t));
    if (row.a) head.append(element("span", "chip " + (row.p === null ? "fine" : "bad"), row.a));
    if (row.b) head.append(element("span", "chip " + (row.p === null ? "fine" : "bad"), row.p === null ? "harmless question" : "harmless question, spoilt"));
    if (row.u) head.append(element("span", "chip" + (row.u[row.u.length - 1] ? " bad" : ""), row.u.map(verdict).join(" → ")));
    if (row.h !== null) head.append(element("span", "quiet mono", "harm " + row.h.toFixed(2)));
    opener.append(head, glimpse(row));
    opener.setAttribute("aria-expanded", "false");
    opener.setAttribute("aria-controls", body.id);
    hideFromReaders(opener);
    const open = (on, veiled) => {
      if (on && !body.childElementCount) fill(body, row);
      const old = body.querySelector(".unveil");
      if (old) old.remove();
      body.classList.toggle("veiled", Boolean(on && veiled));
      for (const words of body.querySelectorAll(".words")) words.setAttribute("aria-hidden", String(Boolean(on && veiled)));
      if (on && veiled) {
        const unveil = button("unveil all", "show the texts of this record");
        unveil.addEventListener("click", () => { open(true, false); opener.focus(); });
        body.prepend(unveil);
      }
      body.hidden = !on;
      opener.setAttribute("aria-expanded", String(on));
    };
    opener.addEventListener("click", () => open(body.hidden, false));
    const copier = button("copy", "copy link");
    copier.setAttribute("aria-label", "copy a link to " + row.s + " / " + row.i + ", " + row.t);
    copier.addEventListener("click", () => copy(location.href.split("#")[0] + "#" + names[data.rows.indexOf(row)], copier));
    box.append(opener, copier, body);
    return {box: box, opener: opener, open: open};
  }
  function hideFromReaders(node) {
    const on = document.body.classList.contains("unmask");
    for (const veil of node.querySelectorAll(".veil")) veil.setAttribute("aria-hidden", String(!on));
  }

  // Links: a record's name in the page is made of its scenario, id and image type.
  const names = [], places = new Map();
  data.rows.forEach((row, place) => {
    const plain = "record=" + [row.s, row.i, row.t].map(encodeURIComponent).join("/");
    const name = places.has(plain) ? plain + "/" + place : plain;  // two benchmarks in one run
    names.push(name);
    places.set(name, place);
  });
  function follow() {
    const place = places.get(location.hash.slice(1));
    byId("linked").hidden = place === undefined;
    if (place === undefined) return;
    const found = item(data.rows[place]);
    byId("linked-item").replaceChildren(found.box);
    found.open(true, true);
    found.opener.focus({preventScroll: true});
    byId("linked").scrollIntoView({block: "start"});
  }
  async function copy(text, source) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch (refused) {  // old browsers, and pages that are framed
      const field = element("textarea");
      field.value = text;
      document.body.append(field);
      field.select();
      done = document.execCommand("copy");
      field.remove();
      source.focus();
    }
    const label = source.dataset.label || source.textContent;
    source.dataset.label = label;
    source.textContent = done ? "copied" : "not copied";
    byId("said").textContent = done ? "copied" : "the browser does not let this page copy";
    setTimeout(() => { source.textContent = label; byId("said").textContent = ""; }, 2000);
  }

  function choices(select, key, all) {
    select.append(new Option(all, ""));
    for (const value of new Set(data.rows.map((row) => row[key]).filter((value) => value !== null))) select.append(new Option(value, value));
  }
  function matches(row) {
    const query = byId("f-q").value.trim().toLowerCase();
    return (!byId("f-s").value || row.s === byId("f-s").value)
      && (!byId("f-t").value || row.t === byId("f-t").value)
      && (!byId("f-a").value || row.a === byId("f-a").value)
      && (!byId("f-u").value || (row.u && row.u[Number(byId("f-u").value)] === true))
      && (!query || [row.q, row.r, row.p, row.i].some((text) => text && text.toLowerCase().includes(query)));
  }
  function draw() {
    const rows = data.rows.filter(matches);
    byId("items").replaceChildren(...rows.slice(0, shown).map((row) => item(row).box));
    byId("count").textContent = rows.length + " of " + data.rows.length + " records";
    byId("more").hidden = rows.length <= shown;
  }

  choices(byId("f-s"), "s", "all scenarios");
  choices(byId("f-t"), "t", "all image types");
  choices(byId("f-a"), "a", "all actions");
  const again = () => { shown = PAGE; draw(); };
  for (const id of ["f-s", "f-t", "f-a", "f-u"]) byId(id).addEventListener("change", again);
  byId("f-q").addEventListener("input", again);
  byId("more").addEventListener("click", () => { shown += PAGE; draw(); });
  byId("unlink").addEventListener("click", () => { byId("linked").hidden = true; history.replaceState(null, "", location.href.split("#")[0]); byId("f-q").focus(); });
  byId("f-m").addEventListener("click", () => {
    const on = document.body.classList.toggle("unmask");
    byId("f-m").setAttribute("aria-pressed", String(on));
    byId("f-m").textContent = on ? "blur all texts" : "show all texts";
    hideFromReaders(document);
    for (const words of document.querySelectorAll(".veiled .words")) words.setAttribute("aria-hidden", String(!on));
  });
  for (const copier of document.querySelectorAll(".step .copy")) {
    copier.addEventListener("click", () => copy(copier.parentElement.querySelector("code").textContent, copier));
  }
  if (byId("examples")) byId("examples").append(...data.examples.map((place) => item(data.rows[place]).box));
  draw();
  follow();
  addEventListener("hashchange", follow);
})();
