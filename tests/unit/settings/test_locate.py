import tomllib

from loopd.settings.locate import line_of, locate_keys

TEXT = '''\
# comment = 1
[node] # who
id = "munich.loop"
name = """
[not.a.table]
id = "nor a key"
"""
[ federation ]
allowed_networks = [ # ] no end
  "10.0.0.0/8", "]",
]
radius_km = 3
[signals.values]
"plastic-pet" = 0.1
default = 0.2
[log]
level.x = 1
api = { listen = "a", b = [
  1] }
format = \'\'\'json\'\'\'
last = "a \\" # [ "
end = 1
'''


def test_keys_and_tables_are_found_where_they_stand() -> None:
    tomllib.loads(TEXT)
    lines = locate_keys(TEXT)
    assert lines == {
        ("node",): 2,
        ("node", "id"): 3,
        ("node", "name"): 4,
        ("federation",): 8,
        ("federation", "allowed_networks"): 9,
        ("federation", "radius_km"): 12,
        ("signals", "values"): 13,
        ("signals", "values", "plastic-pet"): 14,
        ("signals", "values", "default"): 15,
        ("log",): 16,
        ("log", "level"): 17,
        ("log", "level", "x"): 17,
        ("log", "api"): 18,
        ("log", "format"): 20,
        ("log", "last"): 21,
        ("log", "end"): 22,
    }


def test_what_has_no_line_of_its_own_gets_that_of_what_encloses_it() -> None:
    lines = locate_keys(TEXT)
    assert line_of(lines, ("log", "api", "listen")) == 18
    assert line_of(lines, ("federation", "nothing")) == 8
    assert line_of(lines, ("database", "readers")) == 1
