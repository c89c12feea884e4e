"""An oracle that answers each line, a list in JSON, with that list reversed."""

import json
import sys

for line in sys.stdin:
    print(json.dumps(json.loads(line)[::-1]), flush=True)
