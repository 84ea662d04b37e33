#!/bin/sh
# Build the Debian package from the sdist and the wheel, and check it with lintian.
#
#   debian.sh PYTHON FOLDER     a Python with pip; where the sdist and the wheel are, and the package goes
set -eu
python=$1 folder=$2
root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
source=$scratch/reconciler

mkdir "$source" "$source/wheels"
tar -C "$source" --strip-components 1 -xzf "$folder"/reconciler-*.tar.gz
cp "$folder"/reconciler-*.whl "$source/wheels"
# PyYAML and prometheus_client are Debian's own. The other libraries that run are those of `make test`, and are recognised by their hashes.
awk '/^[^ ]/ { ours = /^(click|h11|jsonschema-rs|pyroute2|uvicorn|watchdog)==/ } ours' "$root/requirements.txt" >"$scratch/requirements.txt"
"$python" -m pip download --quiet --no-deps --only-binary :all: --require-hashes --requirement "$scratch/requirements.txt" \
    --dest "$source/wheels"

# The completions and the manual page of this version, which importlib reads beside the package.
"$python" -m zipfile -e "$folder"/reconciler-*.whl "$scratch/wheel"
(cd "$source" && PYTHONPATH=$scratch/wheel "$python" -m tools.generate build)

# 0.1.dev4+g3f9c2ab comes before 0.1.
version=$(sed -n 's/^Version: //p' "$source/PKG-INFO" | sed 's/\.dev/~dev/')
date=$(date --rfc-email --date "@$(stat --format %Y "$source/PKG-INFO")")
cat >"$source/debian/changelog" <<CHANGELOG
reconciler ($version) unstable; urgency=medium

  * CHANGELOG.md has what changed for users.

 -- reconciler maintainers <maintainers@reconciler.example>  $date
CHANGELOG

(cd "$source" && dpkg-buildpackage --build=binary --no-sign) >"$scratch/log" 2>&1 || {
    cat "$scratch/log" >&2
    exit 1
}
cp "$scratch"/reconciler_*.deb "$folder"
lintian --allow-root --fail-on error,warning --info "$folder"/reconciler_*.deb
echo "$(basename "$folder"/reconciler_*.deb): lintian has nothing against it"
