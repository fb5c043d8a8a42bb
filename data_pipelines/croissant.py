"""Metadata of a data set for others: Croissant and a datasheet.

`croissant.json` follows MLCommons' Croissant 1.0 (JSON-LD,
https://docs.mlcommons.org/croissant/docs/croissant-spec.html); catalogues read
it. `datasheet.md` answers the questions of "Datasheets for Datasets" (Gebru et
al., https://arxiv.org/abs/1803.09010) as far as the data set itself can; what
only people know is left to be filled in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines import schema
from data_pipelines.manifest import MANIFEST
from v2a_jax.basics.text import clock

CROISSANT, DATASHEET = "croissant.json", "datasheet.md"
_ENCODING = "application/x-array-record"  # No registered type exists.
_FILL_IN = "*To be filled in.*"
_DESCRIBED = {
  "id": "name of the clip",
  "video": "encoded video, may be empty",
  "audio": "FLAC, may be empty",
  "features": "cached features of the frames, mostly empty",
  "caption": "what is seen",
  "audio_caption": "what should be heard",
  "other_captions": "JSON list of further captions",
  "transcript": "spoken words",
  "words": "JSON list of words with start and end in seconds",
  "events": "JSON list of events with time in seconds",
  "tags": "JSON list of kinds of sound",
  "label": "category",
  "licence": "licence of the clip",
  "source": "where the clip is from",
  "split": "train, val or test",
  "duration": "seconds",
  "sha256": "digest of the file that the clip was cut from",
}


def croissant(
  name: str, manifest: Mapping[str, Any], licences: Mapping[str, int]
) -> dict[str, Any]:
  """Returns the Croissant metadata of a data set.

  Args:
    name: its name.
    manifest: its manifest.
    licences: number of clips by licence.
  """
  shards = [
    {
      "@type": "cr:FileObject",
      "@id": shard["file"],
      "name": shard["file"],
      "contentUrl": shard["file"],
      "contentSize": f"{shard['bytes']} B",
      "encodingFormat": _ENCODING,
      "sha256": shard["sha256"],
    }
    for shard in manifest["shards"]
  ]
  every = {
    "@type": "cr:FileSet",
    "@id": "shards",
    "name": "shards",
    "containedIn": [{"@id": shard["@id"]} for shard in shards],
    "encodingFormat": _ENCODING,
    "includes": f"{schema.DATASET_NAME}-*.array_record-*",
  }
  kinds = {"duration": "sc:Float"} | dict.fromkeys(
    schema.BYTES_FIELDS,
    "sc:Text",  # Croissant 1.0 has no type for bytes.
  )
  fields = [
    {
      "@type": "cr:Field",
      "@id": f"records/{field}",
      "name": field,
      "description": _DESCRIBED[field],
      "dataType": kinds.get(field, "sc:Text"),
      "source": {
        "fileSet": {"@id": "shards"},
        "extract": {"column": field},
      },
    }
    for field in schema.FIELDS
  ]
  counts = manifest["counts"]
  known = [licence for licence in licences if licence]
  return {
    "@context": _CONTEXT,
    "@type": "sc:Dataset",
    "conformsTo": "http://mlcommons.org/croissant/1.0",
    "name": name,
    "description": (
      f"{counts['clips_kept']} clips of video with sound, captions and"
      f" transcripts, {clock(counts['seconds'])} in all, as TFDS array_record"
      f" files; {MANIFEST} has settings and digests."
    ),
    "license": known or ["unknown"],
    "version": f"{manifest['schema_version']}.0.0",
    "distribution": [*shards, every],
    "recordSet": [
      {
        "@type": "cr:RecordSet",
        "@id": "records",
        "name": "records",
        "key": {"@id": "records/id"},
        "field": fields,
      }
    ],
  }


def datasheet(
  name: str,
  manifest: Mapping[str, Any],
  *,
  tables: Mapping[str, Mapping[str, int]],
  notes: Sequence[str],
) -> str:
  """Returns the datasheet as Markdown.

  Args:
    name: name of the data set.
    manifest: its manifest.
    tables: number of clips by value, by what is counted.
    notes: what measuring and annotating found, one line each.
  """
  counts = manifest["counts"]
  settings = ", ".join(f"{k} {v}" for k, v in manifest["settings"].items())
  splits = ", ".join(f"{v:,} {k}" for k, v in manifest["splits"].items())
  drops = {**manifest["drops"], **manifest["clip_drops"]}
  lines = [
    f"# Datasheet: {_escape(name)}",
    "",
    'After "Datasheets for Datasets", https://arxiv.org/abs/1803.09010. Numbers'
    " are counted by `v2a data report`.",
    "",
    "## Motivation",
    "",
    f"For what purpose, by whom, who paid? {_FILL_IN}",
    "",
    "## Composition",
    "",
    f"{counts['clips_kept']:,} clips ({splits}), {clock(counts['seconds'])} in"
    f" all; {counts['clips_without_caption']:,} have no caption. A clip is video,"
    " sound or both, with captions, transcript and tags where known.",
    "",
    *[f"* {_escape(note)}" for note in notes],
  ]
  for title, table in tables.items():
    lines += ["", f"| {title} | clips |", "|---|---|"]
    lines += [f"| {_escape(k or '(none)')} | {v:,} |" for k, v in table.items()]
  lines += [
    "",
    "Does it show or name people, or hold what may offend? Is consent known?"
    f" {_FILL_IN}",
    "",
    "## Collection",
    "",
    f"How and when were the clips obtained, and who chose them? {_FILL_IN}",
    "",
    "## Preprocessing",
    "",
    f"{counts['items_seen']:,} items = {counts['items_kept']:,} kept +"
    f" {counts['items_dropped']:,} dropped. Settings: {_escape(settings)}.",
    "",
    *[f"* dropped: {v:,} {_escape(k)}" for k, v in drops.items()],
    "",
    "## Uses, distribution, maintenance",
    "",
    f"What should it not be used for, under which terms, who keeps it? {_FILL_IN}",
    "",
  ]
  return "\n".join(lines)


def _escape(text: str) -> str:
  """Keeps a text from being Markdown or HTML."""
  text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
  for sign in "\\|*_`[]":
    text = text.replace(sign, f"\\{sign}")
  return text


# The context that Croissant 1.0 prescribes.
_CONTEXT = {
  "@language": "en",
  "@vocab": "https://schema.org/",
  "citeAs": "cr:citeAs",
  "column": "cr:column",
  "conformsTo": "dct:conformsTo",
  "cr": "http://mlcommons.org/croissant/",
  "data": {"@id": "cr:data", "@type": "@json"},
  "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
  "dct": "http://purl.org/dc/terms/",
  "equivalentProperty": "cr:equivalentProperty",
  "examples": {"@id": "cr:examples", "@type": "@json"},
  "extract": "cr:extract",
  "field": "cr:field",
  "fileObject": "cr:fileObject",
  "fileProperty": "cr:fileProperty",
  "fileSet": "cr:fileSet",
  "format": "cr:format",
  "includes": "cr:includes",
  "isLiveDataset": "cr:isLiveDataset",
  "jsonPath": "cr:jsonPath",
  "key": "cr:key",
  "md5": "cr:md5",
  "parentField": "cr:parentField",
  "path": "cr:path",
  "rai": "http://mlcommons.org/croissant/RAI/",
  "recordSet": "cr:recordSet",
  "references": "cr:references",
  "regex": "cr:regex",
  "repeated": "cr:repeated",
  "replace": "cr:replace",
  "samplingRate": "cr:samplingRate",
  "sc": "https://schema.org/",
  "separator": "cr:separator",
  "source": "cr:source",
  "subField": "cr:subField",
  "transform": "cr:transform",
}
