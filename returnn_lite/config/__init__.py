"""From the text of a config to a dict with positions, and from that to typed options.

- `compose.read_composed(path)` (YAML, JSON) and `python_source.read_python(path, overrides)` give a `source.Source`:
  the data, and where each key is. `compose.overridden` applies what the command line says.
- An option class is a frozen dataclass whose fields are made by `options.option`; `decode.decode(cls, values, report)`
  makes an instance of it and reports every mistake.
- `schema` derives the JSON schema from the same declarations; `expression` parses the strings that hold formulas.
- Mistakes are `diagnostics.Diagnostic`s; what can't be used at all raises `diagnostics.ConfigError` with all of them.
"""
