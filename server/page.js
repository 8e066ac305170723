'use strict';
// The page looks at one stream of updates at a time: that of the list, or that of one instance, whose
// name stands behind the # of the address.

const $ = (id) => document.getElementById(id);
let looking = null; // AbortController of the stream
let glow = new Float32Array(0); // of each cell, fading out
let cells = '';

function bytes(n) {
  for (const unit of ['B', 'KiB', 'MiB']) {
    if (n < 1024) return (unit === 'B' ? n : n.toFixed(1)) + ' ' + unit;
    n /= 1024;
  }
  return n.toFixed(2) + ' GiB';
}

function row(texts, link, failed) {
  const tr = document.createElement('tr');
  texts.forEach((text, i) => {
    const td = document.createElement('td');
    if (i === 0 && link) {
      const a = document.createElement('a');
      a.href = link;
      a.textContent = text;
      td.append(a);
    } else {
      td.textContent = text;
    }
    if (failed) td.className = 'failed';
    tr.append(td);
  });
  return tr;
}

function showList(list) {
  $('totals').textContent = `${list.open} open, ${list.waiting} events running or waiting, ` +
    `${Math.round(list.eventsPerSecond)} events/s`;
  const focused = document.activeElement && document.activeElement.getAttribute('href');
  $('rows').replaceChildren(...list.instances.map((i) => row([i.name, i.seq,
    Math.round(i.eventsPerSecond), i.eventsPerSecond ? i.us.toFixed(1) : '', bytes(i.memoryBytes),
    bytes(i.walUsed), i.tracker], '#' + encodeURIComponent(i.name))));
  if (focused) { // the keyboard stays where it was
    for (const a of $('rows').querySelectorAll('a')) if (a.getAttribute('href') === focused) a.focus();
  }
  $('empty').hidden = list.instances.length > 0;
}

function showOne(v) {
  if (v.problem) {
    $('facts').textContent = v.problem;
    return;
  }
  $('facts').textContent = v.open ?
    `commit ${v.seq}, ${bytes(v.memoryBytes)} of memory, a cell is ${v.pagesEach} ` +
    `page${v.pagesEach === 1 ? '' : 's'} of 4 KiB, ${v.stats.mode}, tracker ${v.stats.tracker}` :
    'not open: its next event opens it';
  if (v.cells.length !== glow.length) glow = new Float32Array(v.cells.length);
  cells = v.cells;
  for (let i = 0; i < cells.length; i++) if (cells[i] === '3') glow[i] = 1;
  $('globals').replaceChildren(...v.globals.map((g) => row([g.name, g.type, g.value])));
  $('commits').replaceChildren(...v.commits.slice().reverse().map((c) => row(
    [c.error ? c.error : c.seq, c.function, c.bytes, c.us.toFixed(1)], null, c.error)));
}

function color(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function rgb(hex) {
  if (hex.length === 4) hex = '#' + [...hex.slice(1)].map((c) => c + c).join('');
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// draw paints the memory; what was just written glows out within a second and a half.
function draw() {
  requestAnimationFrame(draw);
  const canvas = $('memory');
  if ($('one').hidden || document.hidden || !cells.length) return;
  const across = Math.min(cells.length, canvas.clientWidth < 500 ? 64 : 128);
  const down = Math.ceil(cells.length / across);
  if (canvas.width !== across || canvas.height !== down) {
    canvas.width = across;
    canvas.height = down;
    canvas.style.height = Math.max(12, down * canvas.clientWidth / across) + 'px';
  }
  const colors = ['--c0', '--c1', '--c2', '--c3'].map((n) => rgb(color(n)));
  const context = canvas.getContext('2d');
  const image = context.createImageData(across, down);
  for (let i = 0; i < cells.length; i++) {
    const base = colors[Math.min(2, Number(cells[i]))], hot = colors[3], g = glow[i];
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = base[c] + (hot[c] - base[c]) * g;
    image.data[4 * i + 3] = 255;
    glow[i] = g < 0.02 ? 0 : g * 0.965;
  }
  context.putImageData(image, 0, 0);
}

async function look() {
  if (looking) looking.abort();
  const mine = looking = new AbortController();
  const name = decodeURIComponent(location.hash.slice(1));
  $('list').hidden = name !== '';
  $('one').hidden = name === '';
  $('name').textContent = name;
  document.title = name ? name + ' - mmrun' : 'mmrun';
  cells = '';
  const url = name ? '/v1/instances/' + encodeURIComponent(name).replace(/\./g, '%2E') + '/watch' : '/v1/watch';
  while (looking === mine) {
    try {
      await stream(url, mine.signal, name ? showOne : showList);
      $('state').textContent = 'the server has ended the stream, trying again';
    } catch (e) {
      if (looking !== mine) return;
      if (e.message === 'token') return ask();
      $('state').textContent = 'no connection, trying again (' + e.message + ')';
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

async function stream(url, signal, show) {
  const token = sessionStorage.getItem('token');
  const answer = await fetch(url, {signal, headers: token ? {Authorization: 'Bearer ' + token} : {}});
  if (answer.status === 401) throw new Error('token');
  if (!answer.ok) throw new Error((await answer.json()).detail);
  $('state').textContent = 'live';
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    const parts = (rest + value).split('\n\n');
    rest = parts.pop();
    for (const part of parts) if (part.startsWith('data: ')) show(JSON.parse(part.slice(6)));
  }
}

function ask() {
  $('state').textContent = 'the server wants a token';
  $('login').hidden = false;
  $('token').focus();
}

$('login').addEventListener('submit', (e) => {
  e.preventDefault();
  sessionStorage.setItem('token', $('token').value);
  $('login').hidden = true;
  look();
});
addEventListener('hashchange', look);
addEventListener('keydown', (e) => { if (e.key === 'Escape' && location.hash) location.hash = ''; });
look();
draw();
