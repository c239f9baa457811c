"""The four networks of build.py, written so that their ONNX export keeps readable node names."""

import torch
from torch import nn

CLASS_COUNT = 10


class DigitMlp(nn.Module):
    """Three dense layers on the 64 pixels of an 8x8 picture."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(64, 256)
        self.hidden2 = nn.Linear(256, 256)
        self.classifier = nn.Linear(256, CLASS_COUNT)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the logits (N, 10) of pixels (N, 64)."""
        hidden = self.relu1(self.hidden1(pixels))
        return self.classifier(self.relu2(self.hidden2(hidden)))


class InvertedResidual(nn.Module):
    """The MobileNetV2 block: expand (1x1), depthwise (3x3), project (1x1), shortcut if possible."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        width = 4 * channels_in
        self.has_shortcut = stride == 1 and channels_in == channels_out
        self.expand = nn.Conv2d(channels_in, width, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(width)
        self.expand_relu6 = nn.ReLU6()
        self.depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(width)
        self.depthwise_relu6 = nn.ReLU6()
        self.project = nn.Conv2d(width, channels_out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(channels_out)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give features of channels_out channels, 1/stride as high and wide."""
        hidden = self.expand_relu6(self.expand_norm(self.expand(features)))
        hidden = self.depthwise_relu6(self.depthwise_norm(self.depthwise(hidden)))
        hidden = self.project_norm(self.project(hidden))
        return features + hidden if self.has_shortcut else hidden


class DigitCnn(nn.Module):
    """A small MobileNetV2 on 16x16 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(24)
        self.stem_relu6 = nn.ReLU6()
        self.block1 = InvertedResidual(24, 24, stride=1)
        self.block2 = InvertedResidual(24, 40, stride=2)
        self.block3 = InvertedResidual(40, 40, stride=1)
        self.block4 = InvertedResidual(40, 64, stride=2)
        self.block5 = InvertedResidual(64, 64, stride=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(64, CLASS_COUNT)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give the logits (N, 10) of pictures (N, 1, 16, 16)."""
        features = self.stem_relu6(self.stem_norm(self.stem(image)))
        features = self.block3(self.block2(self.block1(features)))
        features = self.block5(self.block4(features))
        return self.classifier(self.flatten(self.pool(features)))


class DigitLstm(nn.Module):
    """A bidirectional LSTM that reads a 16x16 picture row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 96, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(2 * 96, CLASS_COUNT)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Give the logits (N, 10) of pictures (N, 16 rows, 16 columns)."""
        outputs, _ = self.lstm(rows)
        return self.classifier(outputs.mean(dim=1))


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer, its attention spelt out as MatMul and Softmax."""

    def __init__(self, token_count: int, width: int, head_count: int, feed_width: int) -> None:
        super().__init__()
        # Constant shapes (the batch axis is -1) keep Shape and Gather chains out of the graph.
        self.split_shape = (-1, token_count, head_count, width // head_count)
        self.merge_shape = (-1, token_count, width)
        self.scale = (width // head_count) ** -0.5
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attention_output = nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_expand = nn.Linear(width, feed_width)
        self.gelu = nn.GELU()
        self.feed_project = nn.Linear(feed_width, width)

    def attend(self, hidden: torch.Tensor) -> torch.Tensor:
        """Let every token gather from all the others, with several heads."""
        query = self.query(hidden).reshape(self.split_shape).permute(0, 2, 1, 3)
        key = self.key(hidden).reshape(self.split_shape).permute(0, 2, 3, 1)
        value = self.value(hidden).reshape(self.split_shape).permute(0, 2, 1, 3)
        weights = self.softmax(query @ key * self.scale)
        context = (weights @ value).permute(0, 2, 1, 3).reshape(self.merge_shape)
        return self.attention_output(context)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Give hidden states of the same shape (N, tokens, width)."""
        hidden = hidden + self.attend(self.attention_norm(hidden))
        return hidden + self.feed_project(self.gelu(self.feed_expand(self.feed_norm(hidden))))


class DigitTransformer(nn.Module):
    """A two-layer transformer encoder on 25 patch codes out of a vocabulary of 256."""

    def __init__(self) -> None:
        super().__init__()
        token_count, width = 25, 64
        # Words and positions start small and alike, else the words drown the positions.
        self.token_embedding = nn.Embedding(256, width)
        nn.init.normal_(self.token_embedding.weight, std=0.1)
        self.position_embedding = nn.Parameter(0.1 * torch.randn(1, token_count, width))
        self.layer1 = EncoderLayer(token_count, width, head_count=4, feed_width=192)
        self.layer2 = EncoderLayer(token_count, width, head_count=4, feed_width=192)
        self.final_norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, CLASS_COUNT)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Give the logits (N, 10) of patch codes (N, 25)."""
        hidden = self.token_embedding(tokens) + self.position_embedding
        hidden = self.final_norm(self.layer2(self.layer1(hidden)))
        return self.classifier(hidden.mean(dim=1))
