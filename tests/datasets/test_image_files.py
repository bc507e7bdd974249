import pytest

from fasternet_mm.datasets.image_files import names_below


@pytest.mark.parametrize(
    ('files', 'names'),
    [
        ([], []),
        (['/data/val/0001.jpg'], ['0001']),
        (['/data/val/0001.jpg', '/data/val/0002.png'], ['0001', '0002']),
        (['/data/a/0001.jpg', '/data/b/0001.jpg', '/data/b/c/0001.jpg'], ['a/0001', 'b/0001', 'b/c/0001']),
        (['/data/0001.jpg', '/data/0001.png', '/data/2.jpg'], ['0001.jpg', '0001.png', '2']),
        (['/data/a.jpg', '/data/a.png', '/data/a.jpg.png'], ['a.jpg', 'a.png', 'a.jpg.png']),
        (['/data/0001.jpg', '/data/0001.jpg'], ['0001', '0001']),
        (['/data/frame.1.jpg', '/data/frame.2.jpg'], ['frame.1', 'frame.2']),
        (['a/0001.jpg', '../0001.jpg'], ['here/a/0001', '0001']),
    ],
)
def test_files_are_named_by_their_paths_below_the_folder_that_they_share(files, names, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    by_file = names_below(files)
    assert [by_file[file] for file in files] == names
