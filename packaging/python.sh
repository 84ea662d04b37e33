#!/bin/sh
# Build the sdist, and the wheel from it. Check both with twine, install each where nothing else is, and run it there.
#
#   python.sh PYTHON FOLDER     a Python with hatchling and twine; where the two files go
set -eu
python=$1 folder=$2
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m hatchling build --target sdist --directory "$folder" >/dev/null
tar -C "$scratch" --strip-components 1 -xzf "$folder"/reconciler-*.tar.gz
(cd "$scratch" && "$python" -m hatchling build --target wheel --directory "$folder" >/dev/null)
"$python" -m twine check --strict "$folder"/reconciler-*.tar.gz "$folder"/reconciler-*.whl

cd "$scratch"
for file in "$folder"/reconciler-*.tar.gz "$folder"/reconciler-*.whl; do
    "$python" -m venv --clear "$scratch/venv"
    # Alone in it: no variable leads Python to another copy.
    PYTHONPATH='' "$scratch/venv/bin/python" -m pip install --quiet "$file"
    PYTHONPATH='' sh "$root/packaging/try.sh" "$scratch/venv/bin/reconciler" "$root/examples"
    echo "$(basename "$file"): installs into an empty environment and works there"
done
