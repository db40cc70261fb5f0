package dev.bolmo;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What a program in Java does: load, generate with a listener, cancel, close. */
class JavaTest {
    private static LoadOptions options() {
        EngineOptions engine = new EngineOptions(System.getProperty("bolmo.test.adapter", "cpu"));
        return new LoadOptions.Builder().engineOptions(engine).format(Format.F32).build();
    }

    private static String folder() {
        return ModelTestKt.getTrained().toString();
    }

    @Test
    void generatesWithAListener() {
        List<Double> progress = new ArrayList<>();
        try (Model model = Model.loadBlocking(folder(), options(), p -> progress.add(p.getFraction()));
                Session session = model.session()) {
            assertEquals(1.0, progress.get(progress.size() - 1));
            session.appendBlocking("def main(");
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            StringBuilder text = new StringBuilder();
            GenerateOptions options = new GenerateOptions.Builder().maxBytes(40).temperature(0.8f).seed(1).build();
            Generation generation = session.generateBlocking(options, piece -> {
                bytes.writeBytes(piece.getBytes());
                text.append(piece.getText());
                return true;
            });
            assertArrayEquals(generation.getBytes(), bytes.toByteArray());
            assertEquals(generation.getText(), text.toString());
            assertTrue(generation.getStop() == StopReason.BUDGET || generation.getStop() == StopReason.END);
        }
        assertEquals(0, Bolmo.getHandleCount());
    }

    @Test
    void cancels() throws InterruptedException {
        try (Model model = Model.loadBlocking(new File(folder()), options()); Session session = model.session()) {
            session.appendBlocking("def main(");
            GenerateOptions endless = new GenerateOptions.Builder().maxBytes(1_000_000).endBias(-1000f).build();
            Generation stopped = session.generateBlocking(endless, piece -> false);
            assertEquals(StopReason.CANCELLED, stopped.getStop());
            Thread other = new Thread(() -> {
                try {
                    Thread.sleep(50);
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                session.cancel();
            });
            other.start();
            Generation cancelled = session.generateBlocking(endless);
            other.join();
            assertEquals(StopReason.CANCELLED, cancelled.getStop());
            assertEquals(5, session.generateBlocking(new GenerateOptions.Builder().maxBytes(5).endBias(-1000f).build())
                    .getBytes().length);
        }
        assertEquals(0, Bolmo.getHandleCount());
    }

    @Test
    void closesAndFails() {
        Model model = Model.loadBlocking(ModelTestKt.getTrained(), options());
        Session session = model.session();
        session.close();
        session.close();
        model.close();
        assertTrue(session.isClosed());
        assertThrows(IllegalStateException.class, () -> session.appendBlocking("x"));
        assertThrows(BolmoException.NotFound.class, () -> Model.loadBlocking("/nowhere"));
        assertFalse(Engine.adapters().isEmpty());
        assertThrows(BolmoException.InvalidArgument.class, () -> Constraint.regex("("));
        assertEquals(0, Bolmo.getHandleCount());
    }

    @Test
    void otherCalls() {
        try (Engine engine = Engine.openBlocking(new EngineOptions(System.getProperty("bolmo.test.adapter", "cpu")));
                Model model = Model.loadBlocking(folder(), new LoadOptions.Builder().engine(engine).build());
                Session session = model.session();
                Constraint constraint = Constraint.regex("[a-z]{4}")) {
            session.appendBlocking("abc");
            try (SessionCheckpoint mark = session.checkpointBlocking(); Session fork = session.forkBlocking()) {
                GenerateOptions options = new GenerateOptions.Builder().constraint(constraint).maxBytes(9).build();
                String text = session.generateBlocking(options).getText();
                session.rewindBlocking(mark);
                assertEquals(text, session.generateBlocking(options).getText());
                assertEquals(text, fork.generateBlocking(options).getText());
                assertEquals(4, text.length());
            }
            try (Session restored = model.restoreBlocking(session.snapshotBlocking())) {
                assertEquals(session.getLength(), restored.getLength());
            }
            double bits = model.scoreBlocking("abc").getBitsPerByteJoint();
            assertTrue(bits > 0);
            assertEquals(bits, model.scoreBlocking(new byte[] {'a', 'b', 'c'}).getBitsPerByteJoint());
            assertEquals(3, model.scoreIdsBlocking(new int[] {1, 104, 105, 106}).getBytes());
            try (Session other = session.forkBlocking()) {
                GenerateOptions four = new GenerateOptions.Builder().maxBytes(4).endBias(-1000f).build();
                int[] ends = new int[2];
                model.generateBatchBlocking(List.of(session, other), List.of(four, four), piece -> {
                    if (piece.getPiece() == null) ends[piece.getIndex()]++;
                    return true;
                });
                assertArrayEquals(new int[] {1, 1}, ends);
                assertEquals(session.getLastGeneration().getText(), other.getLastGeneration().getText());
            }
            assertEquals(520, session.logitsBlocking().length);
        }
        assertEquals(0, Bolmo.getHandleCount());
    }
}
