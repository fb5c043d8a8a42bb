"use strict";
// Order of the trials and sides of a pair are drawn anew for each listener. An
// answer needs every sound of its trial to have been heard once to its end.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAIRS = data.kind === "pairs";
  const RATINGS = ["1 bad", "2 poor", "3 fair", "4 good", "5 excellent"];
  const DRIFT = 0.08; // seconds, between picture and sound
  const at = (id) => document.getElementById(id);
  const place = `v2a-listen-${data.test}`;
  const [intro, trial, end] = ["intro", "trial", "end"].map(at);
  const video = at("video");
  let sound = null;

  const shuffled = (list) => {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  };

  const fresh = () => ({
    id: crypto.getRandomValues(new Uint32Array(2)).join("-"),
    name: "", now: -1,
    trials: shuffled(data.trials).map((t) => ({
      video: t.video, sounds: shuffled(t.sounds), heard: {}, value: null, plays: 0,
    })),
  });

  // A page from a disk may have no storage, as in a private window.
  const load = () => {
    try { return JSON.parse(localStorage.getItem(place)) || fresh(); }
    catch { return fresh(); }
  };
  const keep = () => {
    try { localStorage.setItem(place, JSON.stringify(state)); } catch { /* none */ }
  };
  const state = load();

  const show = (section) => {
    for (const other of [intro, trial, end]) other.hidden = other !== section;
    window.scrollTo(0, 0);
  };

  function stop() {
    video.pause();
    if (sound) { sound.pause(); sound = null; }
    for (const button of at("players").children) button.classList.remove("on");
  }

  function play(i) {
    const now = state.trials[state.now];
    const code = now.sounds[i];
    if (!code) return;
    stop();
    const own = new Audio(data.sounds[code]);
    sound = own;
    now.plays++;
    at("players").children[i].classList.add("on");
    own.addEventListener("timeupdate", () => {
      if (sound === own && Math.abs(video.currentTime - own.currentTime) > DRIFT) {
        video.currentTime = own.currentTime;
      }
    });
    own.addEventListener("ended", () => {
      if (sound !== own) return;
      now.heard[code] = true;
      stop();
      keep();
      update();
    });
    video.currentTime = 0;
    own.play().catch(() => {});
    if (video.src) video.play().catch(() => {});
  }

  function update() {
    const now = state.trials[state.now];
    const heard = now.sounds.every((code) => now.heard[code]);
    for (const input of at("choices").querySelectorAll("input")) input.disabled = !heard;
    at("next").disabled = !heard || now.value === null;
    [...at("players").children].forEach((button, i) => {
      const letter = PAIRS ? ` ${"AB"[i]}` : "";
      button.textContent = `Play${letter}${now.heard[now.sounds[i]] ? " again" : ""}`;
    });
  }

  function choose(value) {
    state.trials[state.now].value = value;
    keep();
    update();
  }

  function open(i) {
    stop();
    state.now = i;
    keep();
    if (i >= state.trials.length) return finish();
    const now = state.trials[i];
    at("progress").textContent = `Clip ${i + 1} of ${state.trials.length}`;
    const address = data.videos[now.video];
    video.hidden = !address;
    at("blank").hidden = Boolean(address);
    if (address) video.src = address; else video.removeAttribute("src");
    at("players").replaceChildren(...now.sounds.map((_, k) => {
      const button = document.createElement("button");
      button.type = "button";
      button.addEventListener("click", () => play(k));
      return button;
    }));
    const options = PAIRS
      ? [["A", now.sounds[0]], ["No preference", "same"], ["B", now.sounds[1]]]
      : RATINGS.map((text, k) => [text, k + 1]);
    at("choices").replaceChildren(...options.map(([text, value]) => {
      const label = document.createElement("label");
      label.className = "choice";
      const input = document.createElement("input");
      input.type = "radio";
      input.name = "choice";
      input.checked = now.value === value;
      input.addEventListener("change", () => choose(value));
      const span = document.createElement("span");
      span.textContent = text;
      label.append(input, span);
      return label;
    }));
    at("back").disabled = i === 0;
    at("next").textContent = i + 1 === state.trials.length ? "Finish" : "Next";
    show(trial);
    update();
  }

  const answers = () => JSON.stringify({
    schema: 1, test: data.test, kind: data.kind,
    listener: state.name ? `${state.name} ${state.id}` : state.id,
    saved: new Date().toISOString(),
    answers: state.trials.filter((t) => t.value !== null)
      .map((t) => ({ sounds: t.sounds, value: t.value, plays: t.plays })),
  }, null, 1);

  function finish() {
    const done = state.trials.filter((t) => t.value !== null).length;
    at("summary").textContent = `You have judged ${done} of ${state.trials.length} clips.`;
    at("text").value = answers();
    show(end);
  }

  at("begin").addEventListener("click", () => {
    state.name = at("listener").value.trim();
    open(Math.max(state.now, 0));
  });
  at("next").addEventListener("click", () => open(state.now + 1));
  at("back").addEventListener("click", () => open(state.now - 1));
  at("review").addEventListener("click", () => open(state.trials.length - 1));
  at("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([answers()], { type: "application/json" }));
    link.download = `answers-${state.id}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  document.addEventListener("keydown", (event) => {
    if (trial.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "a" || (key === "b" && PAIRS)) play("ab".indexOf(key));
    const input = at("choices").querySelectorAll("input")[Number(key) - 1];
    if (/^[1-5]$/.test(key) && input && !input.disabled) input.click();
    if (key === "enter" && event.target.tagName !== "BUTTON" && !at("next").disabled) at("next").click();
  });
  at("listener").value = state.name;
  if (state.now >= 0) at("begin").textContent = "Go on";
})();
