"use strict";
// The page of v2a serve: one playhead for the picture and all takes.

const $ = (id) => document.getElementById(id);
const FRAME = 1 / 25;
const state = {
  video: null, model: null, words: null, like: "",
  audio: null,              // what is known of the uploaded sound to keep
  jobs: new Map(),          // id: what the API last said of it
  takes: [],                // {job, seed, …, buffer, node}
  current: -1, selection: null, prompts: [],
  playing: false, offset: 0, started: 0,
};

// The API ------------------------------------------------------------------

async function call(path, options = {}) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  let detail = answer.statusText;
  try { detail = (await answer.json()).detail; } catch { /* not JSON */ }
  if (Array.isArray(detail)) {
    detail = detail.map((d) => `${d.loc.slice(1).join(".")}: ${d.msg}`).join("; ");
  }
  throw new Error(detail);
}
const json = async (path, options) => (await call(path, options)).json();
const send = (method, path, body) => json(path, {
  method, headers: {"content-type": "application/json"}, body: JSON.stringify(body),
});
async function upload(path, file) {
  const most = state.model.upload_mb;
  if (file.size > most * 2 ** 20) throw new Error(`${file.name} is over ${most} MB`);
  return json(`${path}?name=${encodeURIComponent(file.name)}`, {method: "POST", body: file});
}

function say(text, kind = "") {
  $("said").textContent = text;
  $("said").className = kind;
}
const wrong = (error) => say(error.message, "bad");

// Playing ------------------------------------------------------------------

let audio = null;
const context = () => audio ??= new AudioContext();
const duration = () => state.takes[0]?.buffer?.duration
  ?? state.video?.duration ?? 0;
const position = () => state.playing
  ? Math.min(context().currentTime - state.started, duration()) : state.offset;

function sound(take) {
  if (!take.buffer || take.node) return;
  const node = context().createBufferSource(), gain = context().createGain();
  node.buffer = take.buffer;
  gain.gain.value = take === state.takes[state.current] ? 1 : 0;
  node.connect(gain).connect(context().destination);
  node.start(0, position());
  take.node = node;
  take.gain = gain;
}

function silence() {
  for (const take of state.takes) {
    take.node?.stop();
    take.node = take.gain = null;
  }
}

async function play() {
  if (!state.takes.some((take) => take.buffer)) return;
  await context().resume();
  if (state.offset >= duration() - 0.01) state.offset = 0;
  state.started = context().currentTime - state.offset;
  state.playing = true;
  state.takes.forEach(sound);
  $("video").currentTime = state.offset;
  $("video").play().catch(() => {});
  $("play").textContent = "❚❚";
  $("play").setAttribute("aria-label", "Pause");
}

function pause() {
  state.offset = position();
  state.playing = false;
  silence();
  $("video").pause();
  $("play").textContent = "▶";
  $("play").setAttribute("aria-label", "Play");
}

function seek(seconds) {
  const playing = state.playing;
  if (playing) pause();
  state.offset = Math.min(Math.max(seconds, 0), duration());
  $("video").currentTime = state.offset;
  if (playing) play();
}

function choose(index) {
  if (!state.takes[index]) return;
  state.current = index;
  state.takes.forEach((take, i) => {
    take.gain?.gain.setTargetAtTime(i === index ? 1 : 0, context().currentTime, 0.004);
    take.item.classList.toggle("on", i === index);
    take.item.querySelector(".pick").setAttribute("aria-pressed", i === index);
  });
  ready();
}

// To the take before or after, of however many.
function step(by) {
  choose(Math.min(Math.max(state.current + by, 0), state.takes.length - 1));
  state.takes[state.current].item.scrollIntoView({block: "nearest"});
}

function tick() {
  const now = position(), whole = duration() || 1;
  if (state.playing && now >= whole) { pause(); state.offset = whole; }
  for (const take of state.takes) take.head.style.left = `${100 * now / whole}%`;
  $("clock").textContent = now.toFixed(2);
  if (document.activeElement !== $("seek") || state.playing) $("seek").value = now;
  const picture = $("video");
  if (state.playing && picture.readyState > 1 && Math.abs(picture.currentTime - now) > 0.12) {
    picture.currentTime = now;
  }
  requestAnimationFrame(tick);
}

// Pictures of sound --------------------------------------------------------

// Fast Fourier transform, in place, of a power of two.
function transform(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let size = 2; size <= n; size <<= 1) {
    const angle = -2 * Math.PI / size;
    for (let i = 0; i < n; i += size) {
      for (let k = 0; k < size / 2; k++) {
        const c = Math.cos(angle * k), s = Math.sin(angle * k);
        const a = i + k, b = a + size / 2;
        const x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
        re[b] = re[a] - x; im[b] = im[a] - y;
        re[a] += x; im[a] += y;
      }
    }
  }
}

function draw(canvas, buffer) {
  const width = canvas.width = 800, height = canvas.height = 176;
  const top = 64, paint = canvas.getContext("2d");
  const data = buffer.getChannelData(0), step = data.length / width;
  paint.fillStyle = "#0d0f14";
  paint.fillRect(0, 0, width, height);
  paint.fillStyle = "#8ab0ff";
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    for (let i = Math.floor(x * step); i < (x + 1) * step && i < data.length; i++) {
      low = Math.min(low, data[i]); high = Math.max(high, data[i]);
    }
    paint.fillRect(x, top / 2 * (1 - high), 1, Math.max(top / 2 * (high - low), 1));
  }
  // Below: a spectrogram, logarithmic in frequency and level.
  const size = 1024, re = new Float32Array(size), im = new Float32Array(size);
  const rows = height - top, image = paint.createImageData(width, rows);
  const lowest = Math.log(60 / buffer.sampleRate * size), most = Math.log(size / 2 - 1);
  for (let x = 0; x < width; x++) {
    const begin = Math.floor((x + 0.5) * step) - size / 2;
    for (let i = 0; i < size; i++) {
      const hann = 0.5 - 0.5 * Math.cos(2 * Math.PI * i / size);
      re[i] = (data[begin + i] ?? 0) * hann;
      im[i] = 0;
    }
    transform(re, im);
    for (let y = 0; y < rows; y++) {
      const bin = Math.round(Math.exp(lowest + (most - lowest) * (rows - 1 - y) / (rows - 1)));
      const level = 10 * Math.log10(re[bin] ** 2 + im[bin] ** 2 + 1e-10);
      const heat = Math.min(Math.max((level + 50) / 80, 0), 1);
      const at = 4 * (y * width + x);
      image.data[at] = 255 * Math.min(1, heat * 1.7);
      image.data[at + 1] = 255 * Math.max(0, heat * 1.5 - 0.5);
      image.data[at + 2] = 255 * (heat < 0.5 ? heat * 0.9 : 0.45 - (heat - 0.5) * 0.6);
      image.data[at + 3] = 255;
    }
  }
  paint.putImageData(image, 0, top);
}

// Takes --------------------------------------------------------------------

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function scoresOf(take) {
  const parts = Object.entries(take.scores).map(([k, v]) => `${k} ${v.toFixed(2)}`);
  if (take.loudness_lufs !== null) parts.push(`${take.loudness_lufs.toFixed(1)} LUFS`);
  parts.push(`${take.true_peak_dbtp.toFixed(1)} dBTP`);
  if (take.tried > 1) parts.push(`${take.tried} tried`);
  if (take.rejected) parts.push("unwanted sound is heard");
  if (take.watermark) parts.push("marked");
  return parts.join(" · ");
}

function show(job, entry) {
  const take = {...entry, job: job.id, item: make("li")};
  const number = state.takes.length + 1;
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Waveform and spectrogram of take ${number}`);
  take.head = make("b");
  take.mark = make("i", {hidden: true});
  const pick = make("button", {type: "button", className: "pick", textContent: `Take ${number}`});
  pick.onclick = () => choose(state.takes.indexOf(take));
  take.keep = make("button", {type: "button", className: "keep", textContent: "★ Keep"});
  take.keep.onclick = () => keep(take);
  take.keep.setAttribute("aria-pressed", entry.kept);
  pick.setAttribute("aria-pressed", false);
  const anew = job.base ? ` · ${job.request.regenerate.map((s) => s.map((x) => x.toFixed(2)).join("–")).join(", ")} s anew` : "";
  const parts = job.request.layers.map(([kind]) => kind).join(" + ");
  const made = `seed ${take.seed}${parts && ` · ${parts}`}${anew}`;
  const row = make("div", {className: "row"}, pick,
    make("span", {className: "scores", textContent: `${made} · ${scoresOf(take)}`}),
    take.keep);
  const wave = make("div", {className: "wave"}, canvas, take.mark, take.head);
  selecting(wave);
  take.item.append(row, wave);
  $("takes").append(take.item);
  state.takes.push(take);
  call(`/api/jobs/${job.id}/takes/${take.seed}/sound`)
    .then((answer) => answer.arrayBuffer())
    .then((bytes) => context().decodeAudioData(bytes))
    .then((buffer) => {
      take.buffer = buffer;
      $("seek").max = duration();
      draw(canvas, buffer);
      take.item.dataset.ready = "";
      if (state.playing) sound(take);
    })
    .catch(wrong);
  if (state.current < 0) choose(0);
  marked();
  ready();
}

async function keep(take) {
  try {
    await send("PUT", `/api/jobs/${take.job}/takes/${take.seed}`, {kept: !take.kept});
    take.kept = !take.kept;
    take.keep.setAttribute("aria-pressed", take.kept);
    ready();
  } catch (error) { wrong(error); }
}

// Selecting ----------------------------------------------------------------

function selecting(wave) {
  let from = null;
  const at = (event) => {
    const box = wave.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * duration();
  };
  wave.onpointerdown = (event) => {
    from = at(event);
    wave.setPointerCapture(event.pointerId);
  };
  wave.onpointermove = (event) => {
    if (from === null || Math.abs(at(event) - from) < 0.02) return;
    select(Math.min(from, at(event)), Math.max(from, at(event)));
  };
  wave.onpointerup = (event) => {
    if (from !== null && Math.abs(at(event) - from) < 0.02) seek(from);
    from = null;
  };
}

function select(from, to) {
  const round = (x) => Math.round(x * 100) / 100;
  state.selection = from === null ? null : [round(from), round(to)];
  $("from").value = state.selection?.[0] ?? "";
  $("to").value = state.selection?.[1] ?? "";
  marked();
  ready();
}

function marked() {
  for (const take of state.takes) {
    take.mark.hidden = !state.selection;
    if (!state.selection) continue;
    const [from, to] = state.selection.map((x) => 100 * x / (duration() || 1));
    take.mark.style.left = `${from}%`;
    take.mark.style.width = `${to - from}%`;
  }
}

// Asking -------------------------------------------------------------------

const number = (id) => $(id).value === "" ? null : Number($(id).value);
const choice = (id) => ({yes: true, no: false})[$(id).value] ?? null;

// [kind, prompt] of the layers that are switched on.
const layers = () => [...document.querySelectorAll("[data-layer]:checked")]
  .map((box) => [box.dataset.layer, box.closest(".layer").lastElementChild.value]);

// What is filled in of the fields that data-NAME names.
function filled(name) {
  const found = {};
  for (const field of document.querySelectorAll(`[data-${name}]`)) {
    if (field.value === "") continue;
    found[field.dataset[name]] = field.type === "number" ? Number(field.value) : field.value;
  }
  return found;
}

// [[from, to], …] of a text such as "1.5-2.5, 4-5".
const spans = (text) => text.split(",").filter((part) => part.trim()).map((part) => {
  const found = /^\s*(\d*\.?\d+)\s*[-–]\s*(\d*\.?\d+)\s*$/.exec(part);
  if (!found) throw new Error(`${part.trim()} is not a span in seconds, such as 1.5-2.5`);
  return [Number(found[1]), Number(found[2])];
});

// The id of the upload whose sound is kept; "" for none.
function kept_sound() {
  const which = $("keep_sound").value;
  if (which === "file" && !state.audio) throw new Error("choose the file whose sound is to be kept");
  if (which === "video" && !spans($("anew").value).length) {
    throw new Error("say which seconds of the video's own sound are to be made anew");
  }
  return which === "video" ? state.video.id : which && state.audio.id;
}

function request() {
  const parts = layers(), sampler = filled("sampler"), guidance = filled("guidance");
  if (Object.keys(guidance).length) sampler.guidance = guidance;
  const kept = $("keep_sound").value !== "";
  const scores = [...$("rank_by").querySelectorAll(":checked")].map((box) => box.value);
  return {
    prompt: parts.length ? "" : $("prompt").value,
    prompts: parts.length ? [] : state.prompts, layers: parts,
    negative_prompt: $("negative_prompt").value,
    transcript: state.words ? "" : $("transcript").value,
    words: state.words ?? [],
    speech: choice("speech"), music: choice("music"), effects: choice("effects"),
    num_candidates: number("num_candidates") ?? 4, seed: number("seed") ?? 0,
    retries: number("retries") ?? 0, sampler,
    duration: number("duration"), shots: $("shots").checked,
    regenerate: kept ? spans($("anew").value) : [],
    audio_track: kept ? number("audio_track") : null,
    like_strength: state.like ? number("like_strength") : null,
    rank_by: scores.length ? scores : ["motion_onset"],
  };
}

const level = () => ({
  loudness: number("loudness"), true_peak: number("true_peak") ?? -1,
  original: $("original").value, original_level: number("original_level") ?? 0,
  duck: number("duck") ?? 12, mark: $("mark").checked, sign: $("sign").checked,
});

// How kept takes are downloaded.
const delivery = () => ({
  ...level(), timeline: $("timeline").value ? [$("timeline").value] : [],
  sample_rate: number("sample_rate"),
  container: $("container").value, audio_codec: $("audio_codec").value, sound_file: $("sound_file").value,
});

async function ask(change = {}, base = null) {
  const job = await send("POST", "/api/jobs", {
    video: state.video.id, like: state.like, base, audio: base ? "" : kept_sound(),
    request: {...request(), ...change}, delivery: level(),
  });
  say("");
  remember(job);
  follow(job.id);
}

async function regenerate() {
  const take = state.takes[state.current];
  if (!take || !state.selection) return;
  if (layers().length) { say("a span is made anew by one prompt: switch the layers off first", "bad"); return; }
  const seed = Math.max(...state.takes.map((other) => other.seed)) + 1;
  try {
    await ask(
      {regenerate: [state.selection], audio_track: null, num_candidates: 1, seed, retries: 0},
      {job: take.job, seed: take.seed});
  } catch (error) { wrong(error); }
}

// Shows what a job has made by now, in the order of its takes, and goes on looking.
async function follow(id, shown = new Set()) {
  const again = (ms) => setTimeout(() => follow(id, shown).catch(wrong), ms);
  let job;
  try {
    job = await json(`/api/jobs/${id}`);
  } catch (error) {
    if (error instanceof TypeError) {  // The service is away; it comes back.
      say("no answer; trying again", "bad");
      again(2000);
    } else {
      state.jobs.delete(id);
      store();
    }
    return;
  }
  if (job.video !== state.video?.id) return;  // Another is looked at by now.
  if ($("said").textContent.startsWith("no answer")) say("");
  remember(job);
  for (const entry of job.takes) {
    if (!shown.has(entry.seed)) { shown.add(entry.seed); show(job, entry); }
  }
  if (["queued", "running"].includes(job.state)) again(500);
  else if (job.state === "failed") say(job.error, "bad");
}

function remember(job) {
  state.jobs.set(job.id, job);
  store();
  if (!state.takes.length) $("command").textContent = job.command;
  const busy = [...state.jobs.values()].filter((j) => ["queued", "running"].includes(j.state));
  $("working").hidden = !busy.length;
  if (busy.length) {
    const now = busy[0];
    $("progress").max = now.request.num_candidates;
    $("progress").value = now.takes.length + now.progress;
    $("stage").textContent = now.state === "queued" ? `waiting, ${now.ahead} before it` : now.stage;
  }
}

function store() {
  const kept = {video: state.video?.id, jobs: [...state.jobs.keys()]};
  localStorage.setItem("v2a", JSON.stringify(kept));
}

function ready() {
  $("go").disabled = !state.video;
  $("regenerate").disabled = !(state.selection && state.takes[state.current]);
  $("exporting").disabled = !state.takes.some((take) => take.kept);
  tell_soon();
}

// The command of each kept take, or of the one that is heard, as it is downloaded.
let telling = 0;
function tell_soon() {
  clearTimeout(telling);
  telling = setTimeout(() => tell(telling).catch(wrong), 100);
}

async function tell(turn) {
  const kept = state.takes.filter((take) => take.kept);
  const told = kept.length ? kept : state.takes.slice(state.current, state.current + 1);
  if (state.current < 0) return;
  const query = new URLSearchParams(Object.entries(delivery()).flatMap(
    ([name, value]) => [value ?? []].flat().map((one) => [name, one])));
  const lines = await Promise.all(told.map(async (take) => {
    const {command} = await json(`/api/jobs/${take.job}/takes/${take.seed}/command?${query}`);
    return `# take ${state.takes.indexOf(take) + 1}, seed ${take.seed}\n${command}`;
  }));
  if (turn === telling) $("command").textContent = lines.join("\n");
}

function seen(video) {
  state.video = video;
  $("dropped").textContent = `${video.name}, ${video.duration.toFixed(2)} s, ${video.width} × ${video.height}`
    + (video.timecode ? `, ${video.timecode}` : "");
  $("video").src = `/api/videos/${video.id}/picture`;
  const own = $("keep_sound").querySelector("[value=video]");
  $("original").disabled = own.disabled = !video.has_audio;
  if (!video.has_audio) $("original").value = "";
  if (own.disabled && own.selected) $("keep_sound").value = "";
  fitting();
  ready();
}

// Shows the fields that mean something beside what is chosen.
function fitting() {
  const which = $("keep_sound").value, kept = {video: state.video, file: state.audio}[which];
  $("audio_file").hidden = which !== "file";
  $("keeping").hidden = !which;
  $("tracks").hidden = !(kept?.audio_tracks > 1);
  if ($("tracks").hidden) $("audio_track").value = "";
  $("original_by").hidden = !$("original").value;
  $("duck_by").hidden = $("original").value !== "duck";
  const like = $("rank_by").querySelector("[value=like]");
  if (like) like.disabled = !state.like;
}

async function take_video(file) {
  say(`${file.name}: uploading`);
  try {
    const video = await upload("/api/videos", file);
    if (state.playing) pause();
    state.takes = [];
    state.jobs.clear();
    state.current = -1;
    state.offset = 0;
    $("takes").replaceChildren();
    $("command").textContent = "";
    $("working").hidden = true;
    select(null);
    seen(video);
    store();
    say("");
  } catch (error) { wrong(error); }
}

// Layers have prompts of their own.
function layered() {
  const apart = layers().length > 0;
  for (const id of ["prompt", "add_prompt", "switches"]) $(id).disabled = apart;
  $("prompts").hidden = apart;
}

function list_prompts() {
  $("prompts").replaceChildren(...state.prompts.map((span, index) => {
    const text = make("input", {value: span[2], maxLength: 2000, placeholder: "what is heard there"});
    text.setAttribute("aria-label", `Prompt from ${span[0]} to ${span[1]} seconds`);
    text.oninput = () => { span[2] = text.value; };
    const off = make("button", {type: "button", textContent: "×"});
    off.setAttribute("aria-label", `Remove the prompt from ${span[0]} to ${span[1]} seconds`);
    off.onclick = () => { state.prompts.splice(index, 1); list_prompts(); };
    return make("div", {}, make("span", {textContent: `${span[0]}–${span[1]} s`}), text, off);
  }));
}

// Wiring -------------------------------------------------------------------

$("form").onsubmit = async (event) => {
  event.preventDefault();
  try { await ask(); } catch (error) { wrong(error); }
};
// A browser points at a field that is wrong, if it is not folded away.
$("form").addEventListener("invalid", (event) => {
  for (let at = event.target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}, true);
$("file").onchange = () => { if ($("file").files[0]) take_video($("file").files[0]); };
$("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) take_video(event.dataTransfer.files[0]);
};
$("words").onchange = async () => {
  const file = $("words").files[0];
  try {
    state.words = file ? (await upload("/api/transcript", file)).words : null;
    say(file ? `${state.words.length} words with times` : "");
  } catch (error) { state.words = null; wrong(error); }
};
$("like").onchange = async () => {
  const file = $("like").files[0];
  try {
    state.like = file ? (await upload("/api/videos", file)).id : "";
    say(file ? `takes are compared with ${file.name}` : "");
  } catch (error) { state.like = ""; wrong(error); }
  $("rank_by").querySelector("[value=like]").checked = Boolean(state.like);
  fitting();
};
$("audio").onchange = async () => {
  const file = $("audio").files[0];
  try {
    state.audio = file ? await upload("/api/videos", file) : null;
    say(file ? `${file.name} is kept, ${state.audio.duration.toFixed(2)} s` : "");
  } catch (error) { state.audio = null; wrong(error); }
  fitting();
};
$("keep_sound").onchange = fitting;
$("add_anew").onclick = () => {
  if (!state.selection) { say("select a span first: drag over a take, or type it beside “Selection”", "bad"); return; }
  const before = $("anew").value.trim();
  $("anew").value = `${before}${before && ", "}${state.selection.join("-")}`;
};
for (const id of ["exporting", "form"]) {
  $(id).addEventListener("change", () => { fitting(); tell_soon(); });
}
$("add_prompt").onclick = () => {
  if (!state.selection) { say("select a span of a take first, by dragging", "bad"); return; }
  state.prompts.push([...state.selection, ""]);
  list_prompts();
  $("prompts").querySelector("div:last-child input").focus();
};
$("layers").oninput = (event) => {
  const box = event.target.closest(".layer").querySelector("[data-layer]");
  if (event.target !== box) box.checked = true;
  layered();
};
$("play").onclick = () => state.playing ? pause() : play();
$("seek").oninput = () => seek(Number($("seek").value));
$("regenerate").onclick = regenerate;
for (const id of ["from", "to"]) {
  $(id).onchange = () => {
    if (number("from") !== null && number("to") > number("from")) select(number("from"), number("to"));
  };
}
$("cancel").onclick = () => {
  for (const job of state.jobs.values()) {
    if (["queued", "running"].includes(job.state)) {
      call(`/api/jobs/${job.id}`, {method: "DELETE"}).catch(wrong);
    }
  }
};
$("export").onclick = async () => {
  const takes = state.takes.filter((take) => take.kept)
    .map((take) => ({job: take.job, seed: take.seed}));
  say("delivering");
  $("export").disabled = true;
  try {
    const answer = await call("/api/export", {
      method: "POST", headers: {"content-type": "application/json"},
      body: JSON.stringify({takes, delivery: delivery()}),
    });
    const link = make("a", {href: URL.createObjectURL(await answer.blob()),
      download: `${state.video.name.replace(/\.[^.]*$/, "")}.zip`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say(`${takes.length} delivered`, "good");
  } catch (error) { wrong(error); }
  $("export").disabled = false;
};
$("copy").onclick = () => navigator.clipboard?.writeText($("command").textContent);
$("video").onerror = () => { $("no_picture").hidden = false; $("video").hidden = true; };
$("video").onloadeddata = () => { $("no_picture").hidden = true; $("video").hidden = false; };
$("suspect").onchange = async () => {
  const file = $("suspect").files[0];
  if (!file) return;
  $("verdict").className = "";
  $("verdict").textContent = `${file.name}: looking`;
  try {
    const found = await upload("/api/detect", file);
    $("verdict").textContent = found.found
      ? `${file.name}: watermark found, by chance at most ${found.false_positive_probability.toExponential(1)}, payload ${found.payload ?? "unreadable"}, ${found.seconds_examined.toFixed(1)} s examined`
      : `${file.name}: no watermark of this key, ${found.seconds_examined.toFixed(1)} s examined`;
    if (found.signed) $("verdict").textContent += `. It is ${found.signed}`;
    $("verdict").className = found.found ? "good" : "";
  } catch (error) {
    $("verdict").textContent = error.message;
    $("verdict").className = "bad";
  }
};
// A file that is chosen again, because it has changed, is read again.
for (const input of document.querySelectorAll("input[type=file]")) {
  input.onclick = () => {
    if (!input.value) return;
    input.value = "";
    input.dispatchEvent(new Event("change"));
  };
}
function view(name) {
  for (const tab of document.querySelectorAll("nav button")) {
    const on = tab.dataset.view === name;
    if (on) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
    $(tab.dataset.view).hidden = !on;
  }
  if (state.playing) pause();
}
for (const tab of document.querySelectorAll("nav button")) tab.onclick = () => view(tab.dataset.view);
$("why").onclick = () => {
  view("model");
  $("responsible_use").scrollIntoView();
  $("responsible_use").focus();
};
document.onkeydown = (event) => {
  const tag = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || $("make").hidden) return;
  if (["TEXTAREA", "SELECT"].includes(tag)) return;
  if (tag === "INPUT" && event.target.type !== "range") return;
  const index = "123456789".indexOf(event.key);
  if (event.key === " " && tag !== "BUTTON" && tag !== "SUMMARY") state.playing ? pause() : play();
  else if (index >= 0) choose(index);
  else if (event.key === "ArrowLeft" && tag !== "INPUT") seek(position() - FRAME);
  else if (event.key === "ArrowRight" && tag !== "INPUT") seek(position() + FRAME);
  else if (event.key === "ArrowUp" && tag !== "INPUT" && state.takes.length) step(-1);
  else if (event.key === "ArrowDown" && tag !== "INPUT" && state.takes.length) step(1);
  else if (event.key === "k") { if (state.takes[state.current]) keep(state.takes[state.current]); }
  else if (event.key === "r") regenerate();
  else if (event.key === "Escape") select(null);
  else return;
  event.preventDefault();
};

async function start() {
  state.model = await json("/api/model");
  $("model_name").textContent = state.model.name;
  $("card").innerHTML = state.model.html.card || "<p>This model has no card.</p>";
  $("responsible_use").innerHTML = state.model.html.responsible_use;
  // Wide ones are scrolled by keys.
  for (const wide of document.querySelectorAll(".text table, .text pre")) wide.tabIndex = 0;
  const facts = {"sample rate": `${state.model.sample_rate} Hz`,
    "trained on clips of": `${state.model.window_seconds} s`,
    "speaks given words": state.model.speaks ? "yes" : "no",
    "longest video": `${state.model.max_seconds} s`};
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([k, v]) =>
    [make("dt", {textContent: k}), make("dd", {textContent: v})]));
  $("num_candidates").max = state.model.max_candidates;
  $("spoken").hidden = !state.model.speaks;
  $("begin").hidden = !state.model.diffuses;
  for (const name of ["sampler", "guidance"]) {
    const own = name === "sampler" ? state.model.sampler : state.model.sampler.guidance ?? {};
    for (const field of document.querySelectorAll(`[data-${name}]`)) {
      const value = own[field.dataset[name]];
      field.parentElement.hidden = value === undefined;
      if (field.tagName === "SELECT") field.options[0].textContent = `as the model: ${value}`;
      else field.placeholder = value;
    }
  }
  $("num_steps").max = state.model.max_steps;
  $("rank_by").append(...Object.entries(state.model.scores).map(([name, about]) =>
    make("label", {className: "tick"},
      make("input", {type: "checkbox", value: name, checked: name === "motion_onset"}),
      make("span", {textContent: ` ${name}: ${about.replaceAll("`", "")}`}))));
  fitting();
  const kept = JSON.parse(localStorage.getItem("v2a") ?? "{}");
  if (kept.video) {
    try {
      seen(await json(`/api/videos/${kept.video}`));
      for (const id of kept.jobs ?? []) await follow(id);  // Takes keep their numbers.
    } catch { localStorage.removeItem("v2a"); }
  }
}
layered();  // Browsers keep what was ticked.
start().catch(wrong);
requestAnimationFrame(tick);
