// Draws what experts saw over the picture. Their places are shares of its width and height.

const COLOURS = ["#66ccee", "#ee8866", "#eedd88", "#6ec878", "#ff8cbe", "#aaaaff", "#bbcc33", "#ebebeb"];
const BACKGROUND = ".";
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

export function draw(canvas, picture, readings) {
  const pen = canvas.getContext("2d");
  const scale = Math.max(1, Math.min(8, 640 / Math.max(picture.width, picture.height)));
  canvas.width = Math.round(picture.width * scale);
  canvas.height = Math.round(picture.height * scale);
  pen.imageSmoothingEnabled = scale < 2;
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  for (const reading of readings) {
    if (reading.mask) drawMask(pen, canvas, reading.mask);
    drawBoxes(pen, canvas, reading);
  }
}

function drawMask(pen, { width, height }, rows) {
  const high = height / rows.length;
  pen.globalAlpha = 0.45;
  rows.forEach((row, y) => {
    const wide = width / row.length;
    [...row].forEach((letter, x) => {
      if (letter === BACKGROUND) return;
      pen.fillStyle = COLOURS[LETTERS.indexOf(letter) % COLOURS.length];
      pen.fillRect(x * wide, y * high, wide + 1, high + 1);
    });
  });
  pen.globalAlpha = 1;
}

function drawBoxes(pen, { width, height }, reading) {
  const side = Math.max(width, height);
  const letter = Math.max(12, Math.round(side / 32));
  pen.font = `${letter}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  reading.boxes.forEach(([x0, y0, x1, y1], number) => {
    const left = x0 * width, top = y0 * height;
    pen.strokeStyle = pen.fillStyle = COLOURS[number % COLOURS.length];
    pen.lineWidth = Math.max(2, side / 240);
    pen.strokeRect(left, top, (x1 - x0) * width, (y1 - y0) * height);
    const label = reading.labels[number] ?? "";
    if (!label) return;
    pen.fillRect(left, top, pen.measureText(label).width + 8, letter + 4);
    pen.fillStyle = "#16181d";
    pen.fillText(label, left + 4, top + 2);
  });
}

export function words(reading) {
  if (reading.caption) return reading.caption;
  if (!reading.labels.length) return "nothing";
  return reading.labels.map((label, i) => `${label} ${Math.round(100 * (reading.scores[i] ?? 1))} %`).join(", ");
}
