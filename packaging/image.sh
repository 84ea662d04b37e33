#!/bin/sh
# Build the container image from the Debian package, and try it. Without buildah, say so and build nothing.
#
#   image.sh FOLDER     where the package is, and the image goes, as a file for `podman load`
set -eu
folder=$1
root=$(cd "$(dirname "$0")/.." && pwd)
command -v buildah >/dev/null || {
    echo 'no container image: buildah is not installed'
    exit
}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# Neither needs a kernel with overlayfs, nor rights to make namespaces.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

build() {
    command=$1
    shift
    buildah --root "$scratch/images" --runroot "$scratch/run" "$command" "$@"
}

base=docker.io/library/debian:12-slim
if ! build pull --quiet "$base" >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
        echo "no container image: $base cannot be pulled; without it, debootstrap is needed, and root"
        exit
    fi
    debootstrap --variant=minbase bookworm "$scratch/debian" >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        exit 1
    }
    rm -rf "$scratch"/debian/var/cache/apt/archives/*.deb "$scratch"/debian/var/lib/apt/lists/*
    echo "image: $base cannot be pulled; debootstrap made the base"
    base=localhost/debian:12
    container=$(build from scratch)
    build add --quiet "$container" "$scratch/debian" / >/dev/null
    build commit --quiet "$container" "$base" >/dev/null
fi
build build --quiet --build-arg BASE="$base" --file "$root/packaging/Containerfile" --tag reconciler "$folder" >"$scratch/log" 2>&1 || {
    cat "$scratch/log" >&2
    exit 1
}
container=$(build from localhost/reconciler)
build run --volume "$root:/source:ro" "$container" -- sh /source/packaging/try.sh /usr/bin/reconciler /source/examples
file=$(basename "$folder"/reconciler_*.deb .deb).image.tar
build push --quiet localhost/reconciler "docker-archive:$folder/$file:reconciler:latest" >/dev/null
echo "$file: the image runs"
