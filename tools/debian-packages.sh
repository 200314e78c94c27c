#!/usr/bin/env bash
# Get files out of Debian packages: installed with apt by root, else downloaded and unpacked below a
# folder without root. What is there already is not fetched again; what cannot be had is said, once.
#   tools/debian-packages.sh FOLDER PACKAGE...
set -u
folder=$1
shift

missing() {
    for package in "$@"; do
        [ -e "$folder/.$package" ] && continue
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
    done
}

download() {  # one package, into the current folder
    apt-get download -q "$1" >/dev/null 2>&1 && return
    # Without apt's lists (a fresh container) fetch them into a folder of our own.
    local apt="$PWD/.apt"
    mkdir -p "$apt/lists/partial"
    apt-get -q -o Dir::State::Lists="$apt/lists" -o Debug::NoLocking=1 update >/dev/null 2>&1
    apt-get -q -o Dir::State::Lists="$apt/lists" download "$1" >/dev/null 2>&1
}

wanted=$(missing "$@")
[ -z "$wanted" ] && exit 0
if ! command -v apt-get >/dev/null; then
    echo "no apt-get here: get these files yourself and run 'tonics assets --from DIR':" $wanted
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    echo "installing with apt-get:" $wanted
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends $wanted >/dev/null 2>&1 ||
        { apt-get update -q >/dev/null 2>&1
          apt-get install -y -q --no-install-recommends $wanted >/dev/null 2>&1; }
    wanted=$(missing "$@")
fi
if [ -n "$wanted" ]; then
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    work=$(mktemp -d)
    cd "$work" || exit 1
    for package in $wanted; do
        echo "unpacking $package into $(basename "$folder")/"
        if download "$package" && dpkg-deb -x "$package"_*.deb "$folder"; then
            touch "$folder/.$package"
        else
            echo "could not get the Debian package $package"
        fi
        rm -f -- *.deb
    done
    rm -rf "$work"
fi
exit 0
