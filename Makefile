# Everything runs in a virtual environment of its own, from hashed requirements. As root: namespaces need it.
VENV := .venv
# What builds the documentation has an environment of its own: nobody needs it to run or to test reconciler.
DOCS := .venv-docs
# The Python that the environment is made of: the system's own, which is what users have. `make PYTHON=...` takes another.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
PYTEST := $(VENV)/bin/python -m pytest --durations=20
# Where Python may not keep bytecode, each process compiles all tests, and each command of a test all of the package.
unexport PYTHONDONTWRITEBYTECODE
# tests/conftest.py has the number of processes, and what runs in which of them.
WORKERS := --numprocesses auto --no-loadscope-reorder
# `sysctl` and others are there, where an ordinary user does not look.
export PATH := $(PATH):/usr/sbin:/sbin
# The newest kernel that guests run; apt's lists can be older than its package.
KERNEL := linux-image-6.12-cloud-amd64
# Shells whose completions are tested, what reads the manual page, and what a page of the docs uses.
SHELLS := zsh:zsh fish:fish mandoc:mandoc man:man-db curl:curl
# Shows the page of `watch --ui` without a window.
BROWSER := chromium-headless-shell:chromium-headless-shell
SYSTEM := ip:iproute2 ping:iputils-ping iptables:iptables nsenter:util-linux sysctl:procps qemu-system-x86_64:qemu-system-x86 git:git \
	libvirtd:libvirt-daemon virsh:libvirt-clients debootstrap:debootstrap mke2fs:e2fsprogs
USER_ID := $(shell id -u)
# The program of Debian's package, without its service, which would run for good. One that is installed already does.
ETCD := $(if $(shell command -v etcd),,.etcd/usr/bin/etcd)
# A Linux that is a process, and what tests run there that this host may lack (tests/uml).
UML := user-mode-linux busybox-static ipvsadm libnl-3-200 libnl-genl-3-200 libpopt0 conntrack libnetfilter-conntrack3 \
	libnfnetlink0 libmnl0
# What the demo of a fleet needs.
FLEET := ip:iproute2 unshare:util-linux git:git
# What the demo needs: another user than root sees the part without a machine.
DEMO := ip:iproute2 ping:iputils-ping unshare:util-linux $(if $(filter 0,$(USER_ID)),qemu-system-x86_64:qemu-system-x86)

LOCK := uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --no-annotate --upgrade pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help venv fresh setup system demo demo-fleet demo-libvirt test test-fast test-6.1 test-6.12 lint generated editors bench docs soak mutations dist test-deb lock clean

help: ## print this list
	@grep -hE '^[a-z]+[a-z0-9. -]*:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z][a-z0-9. -]*):.*## /  make \1\t/' | expand -t 26

venv: $(VENV)/.complete ## install reconciler in .venv, as any user

setup: venv system $(ETCD) .uml/usr/bin/linux.uml .uml/usr/sbin/conntrack ## install what the other targets need: a virtual environment and Debian packages

demo: venv ## show the main job in a namespace, and for root in a real virtual machine with a real TAP
	$(call install,$(DEMO))
	$(call refresh)
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash examples/demo.sh

demo-libvirt: root venv system ## show a domain of libvirt getting a network, by a libvirtd of the demo's own
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash examples/demo-libvirt.sh

demo-fleet: venv $(ETCD) ## show a fleet of five hosts, as root: waves, a failing host, a rollback, the loss of etcd (a minute)
	$(call install,$(FLEET))
	@PATH="$(CURDIR)/$(VENV)/bin:$(CURDIR)/.etcd/usr/bin:$$PATH" bash examples/demo-fleet.sh

test: setup shells browser ## run all tests, on real namespaces and virtual machines
	@$(MAKE) --no-print-directory --jobs=2 lint compiled
	$(PYTEST) $(WORKERS)

test-fast: $(VENV)/.complete ## run the tests that need neither root nor a virtual machine, as any user
	$(PYTEST) $(WORKERS) -m "not root" -p no:cacheprovider

fresh: root venv ## run every command of README, in order, on a fresh Debian 12 (ten minutes)
	$(call install,debootstrap:debootstrap)
	$(VENV)/bin/python -m tests.fresh /var/cache/reconciler/debian

test-6.1 test-6.12: setup ## run the tests that need a virtual machine, with that kernel in it
	GUEST_KERNEL=$(@:test-%=%) $(PYTEST) $(WORKERS) tests/guest tests/formats tests/ipvs tests/netlink tests/traffic

lint: $(VENV)/.complete ## check format, style, types, the import contract and regular expressions
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/python -m tests.check_regexes reconciler tests tools

# Else each worker would compile all tests for itself.
.PHONY: compiled
compiled: $(VENV)/.complete
	@$(VENV)/bin/python -m pytest --collect-only -qq >/dev/null

generated: $(VENV)/.complete ## make the completions of bash, zsh and fish, and the manual page, below build/
	$(VENV)/bin/python -m tools.generate build

editors: $(VENV)/.complete ## check the schema with what editors run: yaml-language-server, from npm (needs node)
	$(call install,node:nodejs npm:npm)
	$(VENV)/bin/python -m tests.editors.install
	$(PYTEST) tests/editors

bench: root setup ## measure, side by side in one run
	$(VENV)/bin/python -m tests.benchmarks

docs: $(DOCS)/.complete ## build the documentation as a site in build/site, and check all links
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict
	$(DOCS)/bin/python -m tools.site.check build/site

mutations: root setup ## drop each field of each object from the encoders; the tests must notice (ten minutes)
	$(VENV)/bin/python -m tests.mutations

soak: root setup ## take 40 times as many random examples; watch for half an hour, with kills and 10,000 namespaces that come and go; compare an hour of history with recorders; reboot a stock guest
	$(PYTEST) $(WORKERS) --hypothesis-profile=thorough -m "hypothesis or repeats"
	$(VENV)/bin/python -m tests.soak
	$(VENV)/bin/python -m tests.watch.recorded
	@$(MAKE) --no-print-directory demo-fleet
	$(VENV)/bin/python -m tests.reboot

dist: setup packagers ## build sdist, wheel and Debian package into dist/, and check each; a container image if buildah is installed
	@$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements-dist.txt
	@rm -rf dist && mkdir dist
	@export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || date +%s); \
		sh packaging/python.sh $(CURDIR)/$(VENV)/bin/python $(CURDIR)/dist && \
		sh packaging/debian.sh $(CURDIR)/$(VENV)/bin/python $(CURDIR)/dist
	@sh packaging/image.sh $(CURDIR)/dist
	@ls -sh dist

test-deb: setup ## install, use, upgrade, remove and purge the Debian package of `make dist` in a Debian 12 of its own
	$(call install,debootstrap:debootstrap)
	$(VENV)/bin/python -m tests.debian dist/reconciler_*.deb

lock: ## renew the locked requirements from pyproject.toml (needs uv)
	$(LOCK) --extra dev --output-file requirements.txt
	$(LOCK) --extra dist --constraint requirements.txt --output-file requirements-dist.txt
	$(LOCK) --constraint requirements.txt docs/requirements.in --output-file docs/requirements.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) $(DOCS) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .editors .etcd .uml build

$(VENV)/.complete: requirements.txt pyproject.toml
	@echo "Installing reconciler and its tools in $(VENV) (half a minute) …"
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory package NAME=python3-venv
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --require-hashes --requirement requirements.txt
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(VENV)/bin/python -m compileall -q reconciler
	@touch $@

$(DOCS)/.complete: docs/requirements.txt
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory package NAME=python3-venv
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --require-hashes --requirement docs/requirements.txt
	@touch $@

# Commands, each with the Debian package that has it.
define install
	@for each in $(1); do \
		command -v $${each%%:*} >/dev/null || $(MAKE) --no-print-directory package NAME=$${each##*:} || exit 1; \
	done
endef

# The lists of apt, from which images of machines are built.
define refresh
	@test "$(USER_ID)" != 0 || apt-cache show $(KERNEL) >/dev/null 2>&1 || apt-get update --quiet
endef

.PHONY: shells browser
shells:
	$(call install,$(SHELLS))

browser:
	$(call install,$(BROWSER))

.PHONY: root
root:
	@test "$(USER_ID)" = 0 || { echo "make: $(MAKECMDGOALS) needs root: namespaces, devices and virtual machines" >&2; exit 1; }

system:
	$(call install,$(SYSTEM))
	@# The names of protocols, as rules have them.
	@test -e /etc/protocols || $(MAKE) --no-print-directory package NAME=netbase
	@# What has no command of its own: libvirt's driver and its binding.
	@for name in libvirt-daemon-driver-qemu python3-libvirt; do \
		dpkg-query -s $$name >/dev/null 2>&1 || $(MAKE) --no-print-directory package NAME=$$name || exit 1; \
	done
	$(call refresh)

# Unpack Debian packages into a folder, without installing them.
define unpack
	@mkdir -p $(1)
	cd $(1) && { apt-get download --quiet $(2) || \
		{ test "$(USER_ID)" = 0 && apt-get update --quiet && apt-get download --quiet $(2); } }
	cd $(1) && for each in *.deb; do dpkg-deb --extract $$each . && rm $$each || exit 1; done
endef

.etcd/usr/bin/etcd:
	$(call unpack,.etcd,etcd-server)

# The kernel of the package is what comes last: with it, all is there. What is missing from an older folder is made anew.
.uml/usr/bin/linux.uml .uml/usr/sbin/conntrack &:
	$(call unpack,.uml,$(UML))

.PHONY: packagers
packagers:
	$(call install,dpkg-buildpackage:dpkg-dev dh:debhelper dh_python3:dh-python lintian:lintian)

.PHONY: package
package:
	@test "$(USER_ID)" = 0 || \
		{ echo "make: the Debian package $(NAME) is missing: as root, apt-get install $(NAME)" >&2; exit 1; }
	apt-get install --quiet --yes --no-install-recommends $(NAME) || \
		{ apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends $(NAME); }
