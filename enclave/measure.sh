#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Collects what runs inside the enclave in one folder and computes its measurement. See docs/deploy-gramine.md.
#
#   enclave/measure.sh root     the folder and its list of digests; needs a network or WHEELS=DIR, no Gramine
#   enclave/measure.sh sign     render the manifest, measure and sign; needs Gramine and KEY=FILE, no SGX
#
# Two machines that print the same "files" digest and use the same Gramine get the same MRENCLAVE.
set -eu
export LC_ALL=C
umask 022

ROOT=${ROOT:-/opt/trustformer-enclave}     # part of the measurement: everyone uses the same path
STATE=${STATE:-/var/lib/trustformer/state} # likewise
ENCLAVE_SIZE=${ENCLAVE_SIZE:-4G}
THREADS=${THREADS:-4}
PYTHON=${PYTHON:-/usr/bin/python3.11}      # Debian 12: its package version belongs into the release notes
HERE=$(cd "$(dirname "$0")" && pwd)
SOURCE=$HERE/../src/trustformer

make_root() {
    rm -rf "$ROOT"
    mkdir -p "$ROOT/site/trustformer" "$ROOT/libs"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: \
        --require-hashes ${WHEELS:+--no-index --find-links "$WHEELS"} --target "$ROOT/site" -r "$HERE/requirements.txt"
    # The same list as trustformer/enclave/measurement.py; a test runs the enclave from exactly these files.
    for file in $(PYTHONPATH="$SOURCE/.." "$PYTHON" -B -c \
        "from trustformer.enclave.measurement import measured_files as m; print(*m())"); do
        mkdir -p "$ROOT/site/trustformer/$(dirname "$file")"
        cp "$SOURCE/$file" "$ROOT/site/trustformer/$file"
    done
    cp "$PYTHON" "$ROOT/python3.11"
    cp -RL "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" "$ROOT/stdlib"
    # Never imported by the enclave; fewer files are a faster start and less to read. The machine's own sitecustomize.py
    # would be imported before anything else.
    (cd "$ROOT/stdlib" && rm -rf sitecustomize.py test idlelib tkinter turtledemo lib2to3 ensurepip distutils unittest pydoc_data \
        config-* site-packages dist-packages */test */tests sqlite3 curses multiprocessing asyncio xmlrpc \
        lib-dynload/_tkinter.* lib-dynload/_curses* lib-dynload/nis.* lib-dynload/readline.* lib-dynload/_sqlite3.* \
        lib-dynload/_dbm.* lib-dynload/_gdbm.* lib-dynload/_test*)
    (cd "$ROOT/site" && rm -rf bin ./*.dist-info pycparser* cffi/*.h numpy/f2py numpy/_pyinstaller \
        && find . -type d -name tests -prune -exec rm -rf {} + \
        && find . \( -name '*.pyi' -o -name '*.h' -o -name '*.a' -o -name '*.pxd' \) -delete)
    find "$ROOT" -type d -name __pycache__ -prune -exec rm -rf {} +
    find "$ROOT" -name '*.pyc' -delete
    # Shared libraries of the interpreter, its modules and the wheels that Gramine's own runtime does not bring.
    find "$ROOT" \( -name '*.so*' -o -name python3.11 \) -type f -exec ldd {} + 2>/dev/null |
        sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
        grep -vE '/(libc|libm|libdl|libpthread|librt|libutil|libresolv|ld-linux[^/]*)\.so|'"^$ROOT" |
        while read -r library; do cp -L "$library" "$ROOT/libs/"; done
    if [ -n "$(find "$ROOT" -type l)" ]; then
        echo "error: a link in $ROOT: what it leads to would be measured and not listed" >&2
        exit 1
    fi
    find "$ROOT" -exec touch -h -d @0 {} +
    (cd "$ROOT" && find . -type f | sort | xargs sha256sum) >"$HERE/files.sha256"
    echo "files $(wc -l <"$HERE/files.sha256") $(sha256sum <"$HERE/files.sha256" | cut -d' ' -f1)"
}

sign() {
    gramine-manifest -Droot="$ROOT" -Dstate="$STATE" -Denclave_size="$ENCLAVE_SIZE" -Dthreads="$THREADS" \
        "$HERE/trustformer-enclave.manifest.template" "$HERE/trustformer-enclave.manifest"
    gramine-sgx-sign --key "$KEY" --manifest "$HERE/trustformer-enclave.manifest" \
        --output "$HERE/trustformer-enclave.manifest.sgx"
    gramine-sgx-sigstruct-view "$HERE/trustformer-enclave.sig"
}

case ${1:-} in
    root) make_root ;;
    sign) sign ;;
    *) sed -n '3,9s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
