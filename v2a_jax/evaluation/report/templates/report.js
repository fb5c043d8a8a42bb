"use strict";
// One clip is active at a time. Its silent video and its soundtracks play
// together; the sounds that are not chosen are muted, so that switching keeps
// the position to the sample. Only the active clip's sounds exist, as browsers
// allow a page some 75 players.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const cards = [...document.querySelectorAll(".clip")];
  const STEP = 0.25; // seconds, of the arrow keys
  const DRIFT = 0.05; // seconds, between video and sound
  let active = null;

  class Clip {
    constructor(card) {
      this.card = card;
      this.source = data.clips[Number(card.dataset.clip)];
      this.video = card.querySelector("video");
      this.tracks = [...card.querySelectorAll(".track")];
      this.play = card.querySelector(".play");
      this.clock = card.querySelector("output");
      this.heads = [...card.querySelectorAll(".spectrogram b")];
      this.sounds = [];
      this.track = 0;
      this.time = 0;
      this.playing = false;
      this.play.addEventListener("click", () => this.toggle());
      this.tracks.forEach((row, i) => {
        row.querySelector(".pick").addEventListener("click", () => this.pick(i));
        const image = row.querySelector(".spectrogram");
        image.addEventListener("pointerdown", (event) => {
          const box = image.getBoundingClientRect();
          this.pick(i);
          this.seek((event.clientX - box.left) / box.width * this.source.duration);
        });
      });
    }

    showVideo() {
      if (this.video && !this.video.src) {
        this.video.preload = "auto";
        this.video.src = this.source.video;
      }
    }

    activate() {
      if (active === this) return;
      if (active) active.release();
      active = this;
      this.card.classList.add("active");
      this.showVideo();
      this.sounds = this.source.tracks.map((address, i) => {
        const sound = new Audio();
        sound.preload = "auto";
        sound.muted = i !== this.track;
        sound.src = address;
        return sound;
      });
      this.mark();
      this.seek(this.time);
    }

    release() {
      this.stop();
      for (const sound of this.sounds) {
        sound.removeAttribute("src");
        sound.load();
      }
      this.sounds = [];
      this.card.classList.remove("active");
    }

    // What the playhead follows: the audible sound, else the video.
    get leader() {
      const sound = this.sounds[this.track];
      return sound && !sound.error ? sound : this.video;
    }

    get players() {
      return this.video ? [this.video, ...this.sounds] : this.sounds;
    }

    pick(i) {
      if (i >= this.tracks.length) return;
      this.activate();
      this.track = i;
      const time = this.time;
      this.sounds.forEach((sound, j) => { sound.muted = j !== i; });
      const sound = this.sounds[i];
      if (Math.abs(sound.currentTime - time) > DRIFT) sound.currentTime = time;
      this.mark();
    }

    mark() {
      this.tracks.forEach((row, i) => {
        row.classList.toggle("on", i === this.track);
        row.querySelector(".pick").setAttribute("aria-pressed", String(i === this.track));
      });
    }

    seek(time) {
      this.activate();
      this.time = Math.min(Math.max(time, 0), this.source.duration);
      for (const player of this.players) player.currentTime = this.time;
      this.draw();
    }

    toggle() {
      this.activate();
      if (this.playing) this.stop(); else this.start();
    }

    start() {
      if (this.time > this.source.duration - 0.05) this.seek(0);
      this.playing = true;
      this.card.classList.add("playing");
      this.play.setAttribute("aria-label", "Pause");
      for (const player of this.players) {
        player.currentTime = this.time;
        player.play().catch(() => {});
      }
      requestAnimationFrame(() => this.follow());
    }

    stop() {
      this.playing = false;
      this.card.classList.remove("playing");
      this.play.setAttribute("aria-label", "Play");
      for (const player of this.players) player.pause();
    }

    follow() {
      if (!this.playing) return;
      const leader = this.leader;
      if (leader) {
        this.time = leader.currentTime;
        for (const player of this.players) {
          const away = Math.abs(player.currentTime - this.time);
          if (player !== leader && !player.seeking && !player.ended && away > DRIFT) {
            player.currentTime = this.time;
          }
        }
      }
      if (!leader || leader.ended || this.time >= this.source.duration) {
        this.time = this.source.duration;
        this.stop();
      }
      this.draw();
      requestAnimationFrame(() => this.follow());
    }

    draw() {
      const part = 100 * Math.min(1, this.time / this.source.duration);
      for (const head of this.heads) head.style.left = `${part}%`;
      this.clock.textContent = this.time.toFixed(2);
    }
  }

  const clips = cards.map((card) => new Clip(card));
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      clips[cards.indexOf(entry.target)].showVideo();
      near.unobserve(entry.target);
    }
  }, { rootMargin: "300px" });
  cards.forEach((card) => near.observe(card));

  const go = (by) => {
    const i = clips.indexOf(active);
    const next = clips[Math.min(Math.max(i + by, 0), clips.length - 1)];
    if (!next) return;
    next.activate();
    next.card.scrollIntoView({ block: "nearest" });
    next.card.focus({ preventScroll: true });
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !clips.length) return;
    const on = event.target;
    if (on.closest("input, textarea, select, summary")) return;
    // Space on a button presses it, except on the soundtracks' buttons, where
    // Enter does and Space plays.
    if (event.key === " " && on.closest("button, a") && !on.closest(".pick")) return;
    const clip = active || clips[0];
    if (event.key === " ") clip.toggle();
    else if (/^[1-9]$/.test(event.key)) clip.pick(Number(event.key) - 1);
    else if (event.key === "ArrowLeft" && active) clip.seek(clip.time - STEP);
    else if (event.key === "ArrowRight" && active) clip.seek(clip.time + STEP);
    else if (event.key === "j") go(active ? 1 : 0);
    else if (event.key === "k") go(-1);
    else return;
    event.preventDefault();
  });

  const copied = document.getElementById("copied");
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const done = await copy(data[button.dataset.copy]);
      copied.textContent = done ? "Copied" : "The browser did not allow it";
      setTimeout(() => { copied.textContent = ""; }, 2500);
    });
  }

  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = () => root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  name();
})();
