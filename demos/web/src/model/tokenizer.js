// CLIP's byte-pair tokenizer, and what a text tower reads of a phrase (`plain_phrase` and
// `ClipEncoder.plain` of the library).

const QUOTES = "\"'`\u00ab\u00bb\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u300c\u300d\u300e\u300f";
const SENTENCE_END = ".,;:!?\u2026\u3001\u3002";
const DETERMINERS = new Set(
  "a an the some any all every each this that these those".split(" "),
);
const COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"];
const SYNONYMS = { gray: "grey", violet: "purple", crimson: "red", scarlet: "red" };
const SHADES = new Set(["dark", "light", "bright", "pale", "deep"]);

const words = (text) => text.split(/\s+/u).filter(Boolean);

function strip(text, letters) {
  let [start, end] = [0, text.length];
  while (start < end && letters.includes(text[start])) start++;
  while (end > start && letters.includes(text[end - 1])) end--;
  return text.slice(start, end);
}

/** "The  'dogs'." -> "dogs". */
export function plainPhrase(phrase) {
  const text = phrase.normalize("NFKC").replace(/\p{Cf}/gu, "").replaceAll("\u2019", "'");
  let found = words(strip(text, QUOTES + SENTENCE_END + " \t\n"));
  while (found.length > 1 && DETERMINERS.has(found[0].toLowerCase())) found = found.slice(1);
  const plain = found.join(" ") || phrase;
  return plain === phrase ? plain : plainPhrase(plain);
}

/** "dark red car" -> { colour: "red", name: "car" }; null for other phrases and for known names. */
export function splitColour(phrase, aliases = {}) {
  let found = words(phrase);
  if (found.length && ["a", "an", "the"].includes(found[0].toLowerCase())) found = found.slice(1);
  if (Object.hasOwn(aliases, found.join(" ").toLowerCase())) return null;
  if (found.length > 2 && SHADES.has(found[0].toLowerCase())) found = found.slice(1);
  if (found.length < 2) return null;
  const first = found[0].toLowerCase();
  const colour = SYNONYMS[first] ?? first;
  return COLOURS.includes(colour) ? { colour, name: found.slice(1).join(" ") } : null;
}

/** The phrases that a line holds: between commas, each once. */
export function splitPhrases(line) {
  const found = line.split(/[,;\n]/u).map((each) => words(each.normalize("NFC")).join(" "));
  return [...new Set(found.filter((each) => /[\p{L}\p{N}]/u.test(each)))];
}

/** The letters that stand for bytes in CLIP's vocabulary. */
function byteLetters() {
  const letters = new Array(256);
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const shown = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    letters[byte] = String.fromCodePoint(shown ? byte : next++);
  }
  return letters;
}

/** CLIP's tokenizer by the table `tokenizer.json` of an exported model. */
export class Tokenizer {
  constructor(table) {
    if (table.format !== "textsam-clip-bpe") throw new Error(`tokenizer.json is a ${table.format}`);
    this.ids = new Map(table.vocabulary.map((token, id) => [token, id]));
    this.ranks = new Map(table.merges.map((merge, rank) => [merge, rank]));
    this.start = table.start;
    this.end = table.end;
    this.padding = table.padding;
    this.wordEnd = table.word_end;
    this.contextLength = table.context_length;
    this.templates = table.templates;
    this.aliases = table.aliases;
    this.isPlain = table.plain_phrases;
    this.letters = byteLetters();
    this.cache = new Map();
  }

  /** What the tower reads of a phrase: the longest end that has an alias is replaced. */
  plain(phrase) {
    const found = words(plainPhrase(phrase));
    for (let at = 0; at < found.length; at++) {
      const end = found.slice(at).join(" ").toLowerCase();
      if (Object.hasOwn(this.aliases, end)) return [...found.slice(0, at), this.aliases[end]].join(" ");
    }
    return found.join(" ");
  }

  /** Joins the letters of a word, the pair of the lowest rank first. */
  pieces(word) {
    const known = this.cache.get(word);
    if (known) return known;
    const letters = [...word];
    letters[letters.length - 1] += this.wordEnd;
    let parts = letters;
    while (parts.length > 1) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      }
      if (best === Infinity) break;
      const joined = [];
      for (let i = 0; i < parts.length; i++) {
        const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
        joined.push(i + 1 < parts.length && rank === best ? parts[i] + parts[++i] : parts[i]);
      }
      parts = joined;
    }
    this.cache.set(word, parts);
    return parts;
  }

  /** The ids of a sentence: start, pieces, end, then zeros; cut to the context. */
  encode(sentence) {
    const text = words(sentence).join(" ").toLowerCase();
    const ids = [this.start];
    const pattern = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu;
    for (const [word] of text.matchAll(pattern)) {
      const bytes = new TextEncoder().encode(word);
      const letters = Array.from(bytes, (byte) => this.letters[byte]).join("");
      for (const piece of this.pieces(letters)) ids.push(this.ids.get(piece));
    }
    ids.push(this.end);
    if (ids.length > this.contextLength) {
      ids.length = this.contextLength;
      ids[ids.length - 1] = this.end;
    }
    return [...ids, ...new Array(this.contextLength - ids.length).fill(this.padding)];
  }

  /** The ids of a phrase in each of the model's sentences. */
  encodePhrase(phrase) {
    const read = this.isPlain ? this.plain(phrase) : phrase;
    return this.templates.map((template) => this.encode(template.replace("{}", () => read)));
  }
}
