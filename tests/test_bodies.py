"""Files and forms: what is taken for a file, how it is measured and read again, and the bytes of a form."""

from __future__ import annotations

import copy
import io
import os
import pickle
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import ConfigError, File, Request
from bifrost_core.bodies import Multipart, Part, source_of
from bifrost_core.engines import TransportError, Upload
from bifrost_core.kinds import Kind


async def sent(form: Multipart) -> bytes:
    return await Upload(form).whole()


def read_form(form: Multipart, data: bytes) -> list[tuple[dict[str, str], str, bytes]]:
    """The parts as the standard library's mail parser reads them: disposition, media type, content."""
    head = f"content-type: {form.content_type}\r\n\r\n".encode()
    message = message_from_bytes(head + data, policy=policy.HTTP)
    read: list[tuple[dict[str, str], str, bytes]] = []
    for part in message.iter_parts():
        disposition = dict(cast("Any", part["content-disposition"]).params)
        read.append((disposition, part.get_content_type(), cast("bytes", part.get_payload(decode=True))))
    return read


class Pipe(io.BytesIO):
    """An open file that can not be sought."""

    def seekable(self) -> bool:
        return False


# -- what a file is ------------------------------------------------------------------------------------------------


def test_bytes_paths_and_open_files_are_measured_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(b"0123456789")
    with path.open("rb") as opened:
        opened.seek(4)
        sources = [source_of(b"0123456789"), source_of(bytearray(b"0123")), source_of(path), source_of(opened)]
        assert [source.length for source in sources] == [10, 4, 10, 6]
        assert opened.tell() == 4
        assert [source.head(3) for source in sources] == [b"012", b"012", b"012", b"456"]
        assert opened.tell() == 4
        for _ in range(2):
            assert [source.whole() for source in sources] == [b"0123456789", b"0123", b"0123456789", b"456789"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(7, "a file is int; pass bytes, a path, or a file open for reading bytes", id="a number"),
        pytest.param("x.wav", "a file is str", id="a string, which a File does not take for a path"),
        pytest.param(io.StringIO("words"), "it gives text; open it for reading bytes, mode 'rb'", id="a text file"),
        pytest.param(Pipe(b"x"), "it can not be sought", id="a pipe"),
        pytest.param(Path("nowhere") / "at-all.wav", "'at-all.wav' can not be read: No such file", id="no file"),
        pytest.param(Path(os.curdir), "it is no regular file", id="a folder"),
    ],
)
def test_what_is_no_file_is_refused_with_advice(content: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        File("file", "x", content)
    assert caught.value.field == "file"
    assert caught.value.__context__ is None


def test_a_closed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(b"x")
    with path.open("rb") as opened:
        pass
    with pytest.raises(ConfigError, match="the open file can not be sent: ValueError"):
        File("file", "x", opened)


def test_a_request_with_files_is_a_value_that_shows_no_content(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(b"canary")
    made = Request("transcription", "m", {}, [File("file", "a.wav", b"canary", "audio/wav"), File("file", "b", path)])
    same = Request("transcription", "m", {}, [File("file", "a.wav", b"canary", "audio/wav"), File("file", "b", path)])
    other = Request("transcription", "m", {}, [File("file", "a.wav", b"other", "audio/wav"), File("file", "b", path)])
    assert made == same
    assert made != other
    assert hash(made.files) == hash(same.files)
    assert "canary" not in repr(made)
    assert "'a.wav'" in repr(made)
    assert copy.deepcopy(made.files) == made.files
    assert pickle.loads(pickle.dumps(made.files)) == made.files


# -- the form ------------------------------------------------------------------------------------------------------


async def test_a_form_is_written_to_the_letter() -> None:
    form = Multipart.of(
        [Part("model", "voxtral"), Part("file", source_of(b"\x00RIFF"), "a.wav", "audio/wav"), Part("ü", "größe")],
        boundary="b0",
    )
    data = await sent(form)
    assert data == (
        b'--b0\r\nContent-Disposition: form-data; name="model"\r\n\r\nvoxtral\r\n'
        b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        b"\x00RIFF\r\n"
        b'--b0\r\nContent-Disposition: form-data; name="\xc3\xbc"\r\n\r\ngr\xc3\xb6\xc3\x9fe\r\n'
        b"--b0--\r\n"
    )
    assert (len(form), form.text_length) == (len(data), len(data) - 5)
    assert form.content_type == "multipart/form-data; boundary=b0"


async def test_quotes_and_line_ends_in_a_name_can_not_end_the_header() -> None:
    name = 'a"; name="stream\r\nX-Evil: 1\r\n\r\n'
    form = Multipart.of([Part(name, "1"), Part("file", source_of(b"2"), name + ".wav")])
    parts = read_form(form, await sent(form))
    quoted = "a%22; name=%22stream%0D%0AX-Evil: 1%0D%0A%0D%0A"
    assert [part[0]["name"] for part in parts] == [quoted, "file"]
    assert parts[1][0]["filename"] == quoted + ".wav"
    assert [part[2] for part in parts] == [b"1", b"2"]


@settings(max_examples=40)
@given(
    fields=st.lists(st.tuples(st.sampled_from(["a", "b", "c[]"]), st.text("abc äß🌈,;=-"))),
    content=st.binary(max_size=200),
)
async def test_any_form_is_read_back_as_it_was(fields: list[tuple[str, str]], content: bytes) -> None:
    form = Multipart.of([*(Part(*field) for field in fields), Part("file", source_of(content), "x.bin")])
    data = await sent(form)
    assert len(data) == len(form)
    parts = read_form(form, data)
    assert [(part[0]["name"], part[2].decode()) for part in parts[:-1]] == fields
    assert parts[-1] == ({"name": "file", "filename": "x.bin"}, "application/octet-stream", content)


def test_a_boundary_is_new_for_each_form() -> None:
    boundaries = {Multipart.of([]).boundary for _ in range(50)}
    assert len(boundaries) == 50
    assert {len(boundary) for boundary in boundaries} == {32}


# -- reading it ----------------------------------------------------------------------------------------------------


async def test_a_large_file_comes_in_pieces_and_may_be_read_by_several_at_once(tmp_path: Path) -> None:
    content = os.urandom(700_001)
    with (tmp_path / "large").open("wb+") as opened:
        opened.write(b"before" + content)
        opened.seek(6)
        form = Multipart.of([Part("file", source_of(opened), "large")])
        first, second = Upload(form), Upload(form)
        pieces: list[list[bytes]] = [[], []]
        for _ in range(5):  # turn by turn, on one position of one file
            for mine, upload in zip(pieces, (first, second), strict=True):
                mine.append(await anext(upload))
        assert [len(piece) for piece in pieces[0][1:4]] == [262_144, 262_144, 700_001 - 2 * 262_144]
        assert b"".join(pieces[0]) == b"".join(pieces[1])
        assert b"".join(pieces[0][1:4]) == content
        assert not opened.closed


@pytest.mark.parametrize("left", [0, 100_000], ids=["nothing is left", "a part is left"])
async def test_a_file_that_became_shorter_is_told_instead_of_sent(tmp_path: Path, left: int) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(bytes(300_000))
    form = Multipart.of([Part("file", source_of(path), "x")])
    os.truncate(path, left)
    with pytest.raises(TransportError, match="a file can not be read: it has become shorter") as caught:
        await sent(form)
    assert caught.value.kind is Kind.INVALID_REQUEST


async def test_a_file_that_is_gone_is_told_without_its_path(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    path.write_bytes(b"x")
    form = Multipart.of([Part("file", source_of(path), "x")])
    path.unlink()
    with pytest.raises(TransportError) as caught:
        await sent(form)
    assert str(caught.value) == "a file can not be read: No such file or directory"
    assert caught.value.__context__ is None


async def test_a_file_that_turns_to_text_is_told() -> None:
    class Turning(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return "text" if size else b""  # type: ignore[return-value] # what it is about

    form = Multipart.of([Part("file", source_of(Turning(b"1234")), "x")])
    with pytest.raises(TransportError, match="it gives no bytes"):
        await sent(form)
